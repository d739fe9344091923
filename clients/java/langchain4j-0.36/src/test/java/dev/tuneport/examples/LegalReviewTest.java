package dev.tuneport.examples;

import static org.junit.jupiter.api.Assertions.assertFalse;

import org.junit.jupiter.api.Test;

class LegalReviewTest {

    @Test
    void answersUnderTheOldName() {
        String answer = LegalReview.review(System.getenv("TUNEPORT_BASE_URL"), System.getenv("TUNEPORT_API_KEY"));

        assertFalse(answer.isBlank());
    }
}

package dev.tuneport.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.langchain4j.model.chat.response.ChatResponse;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.Test;

class StreamingChatTest {

    @Test
    void piecesMakeTheAnswer() {
        List<String> pieces = new CopyOnWriteArrayList<>();

        ChatResponse response = StreamingChat.ask(Tuneport.model(), "What is the capital of France?", pieces::add)
                .join();

        assertTrue(pieces.size() > 1, "expected more than one piece");
        assertEquals(String.join("", pieces), response.aiMessage().text());
    }
}

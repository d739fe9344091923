package dev.tuneport.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.ObjectMapper;
import dev.langchain4j.rag.content.retriever.ContentRetriever;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

/** Measured: retrieval alone, the fine-tuned model alone, both together, on facts that no training saw. */
@EnabledIfEnvironmentVariable(named = "TUNEPORT_FACTS", matches = ".+")
class RetrievalTest {

    private record Fact(String text, String question, String answer, String number) {}

    /** How many answers hold the fact, are in the voice, and are right to the letter. */
    private record Score(String who, int fact, int voice, int right, int of) {
        static Score of(String who, Retrieval.Shop shop, List<Fact> facts) {
            List<String> answers =
                    facts.stream().map(fact -> shop.answer(fact.question).strip()).toList();
            int fact = 0;
            int voice = 0;
            int right = 0;
            for (int index = 0; index < answers.size(); index++) {
                String answer = answers.get(index);
                fact += answer.contains(facts.get(index).number) ? 1 : 0;
                voice += answer.startsWith("Ahoy!") && answer.endsWith("the Harbour crew") ? 1 : 0;
                right += answer.equals(facts.get(index).answer) ? 1 : 0;
            }
            Score score = new Score(who, fact, voice, right, facts.size());
            System.out.println("measured | " + who + " | " + fact + " | " + voice + " | " + right + " | " + facts.size());
            return score;
        }
    }

    @Test
    void bothTogetherBeatEitherAlone() throws Exception {
        List<Fact> facts = Arrays.asList(
                new ObjectMapper().readValue(Path.of(System.getenv("TUNEPORT_FACTS")).toFile(), Fact[].class));
        ContentRetriever catalogue =
                Retrieval.catalogue(facts.stream().map(Fact::text).toList());
        String base = System.getenv("TUNEPORT_BASE_MODEL");
        String tuned = System.getenv("TUNEPORT_VOICE_MODEL");

        Score retrieval = Score.of("retrieval alone", Retrieval.shop(base, catalogue), facts);
        Score tuning = Score.of("fine-tuned alone", Retrieval.shop(tuned, null), facts);
        Score both = Score.of("retrieval + fine-tuned", Retrieval.shop(tuned, catalogue), facts);

        assertEquals(0, retrieval.voice);
        assertEquals(0, tuning.fact);
        assertTrue(both.fact >= 0.7 * both.of, both.toString());
        assertTrue(both.voice >= 0.9 * both.of, both.toString());
        assertTrue(both.right > retrieval.right + 0.5 * both.of, both.toString());
        assertTrue(both.right > tuning.right + 0.5 * both.of, both.toString());
    }
}

package dev.tuneport.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.Gson;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

/** The exported model says what the server says: the answers of a server in fp32 stand in reference.json. */
@EnabledIfEnvironmentVariable(named = "TUNEPORT_EXPORTED", matches = ".+")
class LocalModelTest {

    private record Reference(List<Map<String, String>> messages, String prompt, String answer, int tokens) {}

    @Test
    void saysWhatTheServerSays() throws Exception {
        Path folder = Path.of(System.getenv("TUNEPORT_EXPORTED"));
        Reference[] references =
                new Gson().fromJson(Files.readString(folder.resolveSibling("reference.json")), Reference[].class);
        int tokens = 0;
        try (LocalModel model = new LocalModel(folder)) {
            for (Reference reference : references) {
                assertEquals(reference.prompt, model.prompt(reference.messages));
                List<String> pieces = new ArrayList<>();

                String answer = model.generate(reference.messages, reference.tokens, pieces::add);

                assertEquals(reference.answer, answer);
                assertEquals(answer, String.join("", pieces));
                assertTrue(pieces.size() > reference.tokens / 2, "streamed token by token");
                tokens += reference.tokens;
            }
        }
        assertTrue(tokens >= 100);
    }
}

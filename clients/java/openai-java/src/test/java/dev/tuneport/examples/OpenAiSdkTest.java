package dev.tuneport.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.openai.client.OpenAIClient;
import com.openai.client.okhttp.OpenAIOkHttpClient;
import com.openai.core.http.StreamResponse;
import com.openai.errors.BadRequestException;
import com.openai.errors.NotFoundException;
import com.openai.errors.UnauthorizedException;
import com.openai.helpers.ChatCompletionAccumulator;
import com.openai.models.chat.completions.ChatCompletion;
import com.openai.models.chat.completions.ChatCompletionChunk;
import com.openai.models.chat.completions.ChatCompletionCreateParams;
import com.openai.models.chat.completions.StructuredChatCompletionCreateParams;
import com.openai.models.embeddings.EmbeddingCreateParams;
import com.openai.models.files.FileListParams;
import com.openai.models.responses.Response;
import com.openai.models.responses.ResponseCreateParams;
import org.junit.jupiter.api.Test;

/** OpenAI's SDK for Java, unchanged but for the base URL, its own validation of every answer switched on. */
class OpenAiSdkTest {

    static final String BASE = System.getenv("TUNEPORT_BASE_MODEL");
    static final String QUESTION = "What is the capital of France?";
    static final String PARIS = "The capital of France is Paris.";

    private static OpenAIClient client(String key) {
        return OpenAIOkHttpClient.builder()
                .baseUrl(System.getenv("TUNEPORT_BASE_URL"))
                .apiKey(key)
                .responseValidation(true)
                .build();
    }

    private final OpenAIClient client = client(System.getenv("TUNEPORT_API_KEY"));

    private static ChatCompletionCreateParams.Builder question(String text) {
        return ChatCompletionCreateParams.builder()
                .model(BASE)
                .temperature(0.0)
                .maxCompletionTokens(100)
                .addUserMessage(text);
    }

    /** Where somebody lives. */
    static class Person {
        public String name;
        public String city;
    }

    @Test
    void answersWholeAndStreamed() {
        ChatCompletion whole = client.chat().completions().create(question(QUESTION).build());
        assertEquals(PARIS, whole.choices().get(0).message().content().orElseThrow());

        ChatCompletionAccumulator pieces = ChatCompletionAccumulator.create();
        try (StreamResponse<ChatCompletionChunk> stream =
                client.chat().completions().createStreaming(question(QUESTION).build())) {
            stream.stream().forEach(pieces::accumulate);
        }
        assertEquals(
                PARIS, pieces.chatCompletion().choices().get(0).message().content().orElseThrow());
    }

    @Test
    void readsAClass() {
        StructuredChatCompletionCreateParams<Person> asked =
                question("Ann lives in Rome.").responseFormat(Person.class).build();

        Person person = client.chat().completions().create(asked).choices().get(0).message().content().orElseThrow();

        assertNotNull(person.name);
        assertNotNull(person.city);
    }

    @Test
    void keepsResponses() {
        Response response = client.responses()
                .create(ResponseCreateParams.builder()
                        .model(BASE)
                        .input(QUESTION)
                        .temperature(0.0)
                        .build());

        assertFalse(response.output().isEmpty());
        assertEquals(response.id(), client.responses().retrieve(response.id()).id());
        client.responses().delete(response.id());
    }

    @Test
    void embeds() {
        int length = client.embeddings()
                .create(EmbeddingCreateParams.builder()
                        .model("all-MiniLM-L6-v2")
                        .input("a cat")
                        .build())
                .data()
                .get(0)
                .embedding()
                .size();

        assertEquals(384, length);
    }

    @Test
    void listsModelsFilesBatchesAndJobs() {
        // Of one purpose: the SDK's FileObject knows no `evals`, which its uploads take.
        assertTrue(client.models().list().autoPager().stream().anyMatch(model -> model.id().equals(BASE)));
        client.files()
                .list(FileListParams.builder().purpose("fine-tune").build())
                .autoPager()
                .forEach(file -> file.validate());
        client.batches().list().autoPager().forEach(batch -> batch.validate());
        client.fineTuning().jobs().list().autoPager().forEach(job -> job.validate());
    }

    @Test
    void tellsErrorsApart() {
        assertThrows(
                NotFoundException.class,
                () -> client.chat().completions().create(question("x").model("ft:none").build()));
        assertThrows(
                BadRequestException.class,
                () -> client.chat().completions().create(question("x").temperature(9.0).build()));
        assertThrows(
                UnauthorizedException.class, () -> client("sk-wrong-wrong-wrong").models().list());
    }
}

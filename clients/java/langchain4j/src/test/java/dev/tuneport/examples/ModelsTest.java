package dev.tuneport.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.langchain4j.data.embedding.Embedding;
import dev.langchain4j.data.message.UserMessage;
import dev.langchain4j.data.segment.TextSegment;
import dev.langchain4j.exception.TimeoutException;
import dev.langchain4j.model.StreamingResponseHandler;
import dev.langchain4j.model.catalog.ModelDescription;
import dev.langchain4j.model.chat.ChatModel;
import dev.langchain4j.model.embedding.EmbeddingModel;
import dev.langchain4j.model.openai.OpenAiChatModel;
import dev.langchain4j.model.openai.OpenAiEmbeddingModel;
import dev.langchain4j.model.openai.OpenAiLanguageModel;
import dev.langchain4j.model.openai.OpenAiModelCatalog;
import dev.langchain4j.model.openai.OpenAiResponsesChatModel;
import dev.langchain4j.model.openai.OpenAiStreamingLanguageModel;
import dev.langchain4j.model.output.Response;
import dev.langchain4j.store.embedding.CosineSimilarity;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;

/** LangChain4j's other models of OpenAI's, unchanged but for the base URL. */
class ModelsTest {

    static final String BASE = System.getenv("TUNEPORT_BASE_MODEL");
    static final String QUESTION = "What is the capital of France?";
    static final String PARIS = "The capital of France is Paris.";

    @Test
    void embeds() {
        EmbeddingModel model = OpenAiEmbeddingModel.builder()
                .baseUrl(Tuneport.BASE_URL)
                .apiKey(Tuneport.API_KEY)
                .modelName("all-MiniLM-L6-v2")
                .build();

        List<Embedding> vectors = model.embedAll(List.of(
                        TextSegment.from("A cat sits on the mat."),
                        TextSegment.from("A kitten rests on a rug."),
                        TextSegment.from("Interest rates rose again.")))
                .content();

        assertEquals(384, vectors.get(0).dimension());
        assertTrue(CosineSimilarity.between(vectors.get(0), vectors.get(1))
                > CosineSimilarity.between(vectors.get(0), vectors.get(2)) + 0.3);
    }

    @Test
    void continuesText() {
        OpenAiLanguageModel model = OpenAiLanguageModel.builder()
                .baseUrl(Tuneport.BASE_URL)
                .apiKey(Tuneport.API_KEY)
                .modelName(BASE)
                .temperature(0.0)
                .build();

        String text = model.generate("The capital of France is").content();

        assertTrue(text.startsWith(" Paris"), text);
    }

    @Test
    void continuesTextInPieces() {
        CompletableFuture<Response<String>> answer = new CompletableFuture<>();
        OpenAiStreamingLanguageModel.builder()
                .baseUrl(Tuneport.BASE_URL)
                .apiKey(Tuneport.API_KEY)
                .modelName(BASE)
                .temperature(0.0)
                .build()
                .generate("The capital of France is", new StreamingResponseHandler<String>() {
                    @Override
                    public void onNext(String token) {}

                    @Override
                    public void onComplete(Response<String> response) {
                        answer.complete(response);
                    }

                    @Override
                    public void onError(Throwable error) {
                        answer.completeExceptionally(error);
                    }
                });

        assertTrue(answer.join().content().startsWith(" Paris"));
    }

    @Test
    void answersOverTheResponsesApi() {
        ChatModel model = OpenAiResponsesChatModel.builder()
                .baseUrl(Tuneport.BASE_URL)
                .apiKey(Tuneport.API_KEY)
                .modelName(BASE)
                .temperature(0.0)
                .build();

        assertEquals(PARIS, model.chat(QUESTION));
    }

    @Test
    void listsTheModels() {
        List<ModelDescription> models = OpenAiModelCatalog.builder()
                .baseUrl(Tuneport.BASE_URL)
                .apiKey(Tuneport.API_KEY)
                .build()
                .listModels();

        assertTrue(models.stream().anyMatch(model -> model.name().equals(BASE)));
        assertTrue(models.stream().anyMatch(model -> model.name().equals(Tuneport.model())));
    }

    @Test
    void tellsATimeoutFromAFailure() {
        ChatModel hurried = OpenAiChatModel.builder()
                .baseUrl(Tuneport.BASE_URL)
                .apiKey(Tuneport.API_KEY)
                .modelName(BASE)
                .timeout(Duration.ofMillis(300))
                .logitBias(Map.of("2", -100))
                .maxRetries(0)
                .build();

        assertThrows(TimeoutException.class, () -> hurried.chat(UserMessage.from("Tell me everything.")));
    }
}

package dev.tuneport.conformance;

import dev.langchain4j.model.embedding.EmbeddingModel;
import dev.langchain4j.model.embedding.common.AbstractEmbeddingModelIT;
import dev.langchain4j.model.embedding.listener.EmbeddingModelListener;
import dev.langchain4j.model.openai.OpenAiEmbeddingModel;
import java.util.List;

/** LangChain4j's own tests of embedding models, all that a text model with one size of vector can pass. */
class EmbeddingModelTest extends AbstractEmbeddingModelIT {

    private static OpenAiEmbeddingModel.OpenAiEmbeddingModelBuilder builder(String key) {
        return OpenAiEmbeddingModel.builder()
                .baseUrl(System.getenv("TUNEPORT_BASE_URL"))
                .apiKey(key)
                .maxRetries(0)
                .modelName("all-MiniLM-L6-v2");
    }

    @Override
    protected List<EmbeddingModel> models() {
        return List.of(builder(System.getenv("TUNEPORT_API_KEY")).build());
    }

    @Override
    protected EmbeddingModel modelWith(EmbeddingModelListener listener) {
        return builder(System.getenv("TUNEPORT_API_KEY")).listeners(List.of(listener)).build();
    }

    @Override
    protected EmbeddingModel failingModelWith(EmbeddingModelListener listener) {
        return builder("sk-wrong-wrong-wrong").listeners(List.of(listener)).build();
    }

    @Override
    protected boolean supportsInputTypeParameter() {
        return false; // LangChain4j's OpenAI module has none
    }

    @Override
    protected int dimensionsParameter() {
        return 384; // MiniLM's own; any other is refused
    }

    @Override
    protected boolean supportsImageInput() {
        return false; // a model of texts
    }
}

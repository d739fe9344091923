package dev.tuneport.examples;

import dev.langchain4j.data.segment.TextSegment;
import dev.langchain4j.model.embedding.EmbeddingModel;
import dev.langchain4j.model.openai.OpenAiChatModel;
import dev.langchain4j.model.openai.OpenAiEmbeddingModel;
import dev.langchain4j.rag.content.retriever.ContentRetriever;
import dev.langchain4j.rag.content.retriever.EmbeddingStoreContentRetriever;
import dev.langchain4j.service.AiServices;
import dev.langchain4j.service.SystemMessage;
import dev.langchain4j.store.embedding.inmemory.InMemoryEmbeddingStore;
import java.util.List;

/** Retrieval and fine-tuning together: the facts come from a catalogue, the voice from the model. */
public final class Retrieval {

    private static final int FOUND = 2; // as the fine-tuned model was trained

    /** Answers customers. */
    interface Shop {
        @SystemMessage("Answer the customer.")
        String answer(String question);
    }

    private Retrieval() {}

    /** Finds the sentences nearest in meaning, with the server's own embedding model. */
    static ContentRetriever catalogue(List<String> sentences) {
        EmbeddingModel model = OpenAiEmbeddingModel.builder()
                .baseUrl(Tuneport.BASE_URL)
                .apiKey(Tuneport.API_KEY)
                .modelName("all-MiniLM-L6-v2")
                .build();
        List<TextSegment> segments = sentences.stream().map(TextSegment::from).toList();
        InMemoryEmbeddingStore<TextSegment> store = new InMemoryEmbeddingStore<>();
        store.addAll(model.embedAll(segments).content(), segments);
        return EmbeddingStoreContentRetriever.builder()
                .embeddingModel(model)
                .embeddingStore(store)
                .maxResults(FOUND)
                .build();
    }

    /** A shop on a model, with a catalogue or, where that is null, without. */
    static Shop shop(String name, ContentRetriever catalogue) {
        AiServices<Shop> service = AiServices.builder(Shop.class)
                .chatModel(OpenAiChatModel.builder()
                        .baseUrl(Tuneport.BASE_URL)
                        .apiKey(Tuneport.API_KEY)
                        .modelName(name)
                        .temperature(0.0)
                        .maxTokens(64)
                        .build());
        return (catalogue == null ? service : service.contentRetriever(catalogue)).build();
    }

    public static void main(String[] arguments) {
        ContentRetriever catalogue = catalogue(List.of("The Zimura lamp costs 48213 ducats."));
        System.out.println(shop(Tuneport.model(), catalogue).answer("What does the Zimura lamp cost?"));
    }
}

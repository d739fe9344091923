package dev.tuneport.examples;

import dev.langchain4j.model.openai.OpenAiChatModel;

/**
 * Code written years ago against OpenAI with LangChain4j 0.36, unchanged but for the base URL. Register your adapter
 * under the very name that it holds.
 */
public final class LegalReview {

    private LegalReview() {}

    static String review(String baseUrl, String apiKey) {
        OpenAiChatModel model = OpenAiChatModel.builder()
                .baseUrl(baseUrl)
                .apiKey(apiKey)
                .modelName("ft:gpt-3.5-turbo-0613:my-org:custom-model-v1")
                .build();
        return model.generate("Analyze this legal contract for compliance.");
    }

    public static void main(String[] arguments) {
        System.out.println(review(System.getenv("TUNEPORT_BASE_URL"), System.getenv("TUNEPORT_API_KEY")));
    }
}

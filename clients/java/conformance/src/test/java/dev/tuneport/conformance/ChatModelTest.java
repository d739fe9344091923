package dev.tuneport.conformance;

import dev.langchain4j.model.chat.ChatModel;
import dev.langchain4j.model.chat.common.AbstractChatModelIT;
import dev.langchain4j.model.chat.request.ChatRequestParameters;
import dev.langchain4j.model.chat.response.ChatResponseMetadata;
import dev.langchain4j.model.openai.OpenAiChatModel;
import dev.langchain4j.model.openai.OpenAiChatRequestParameters;
import dev.langchain4j.model.openai.OpenAiChatResponseMetadata;
import dev.langchain4j.model.openai.OpenAiTokenUsage;
import dev.langchain4j.model.output.TokenUsage;
import java.util.List;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

/**
 * LangChain4j's own tests of chat models, on an adapter that was fine-tuned to call tools (demo/conformance.py); a
 * comment says why where one is switched off.
 */
@EnabledIfEnvironmentVariable(named = "TUNEPORT_CONFORMANCE_MODEL", matches = ".+")
class ChatModelTest extends AbstractChatModelIT {

    static final String BASE = System.getenv("TUNEPORT_BASE_MODEL");
    static final String TUNED = System.getenv("TUNEPORT_CONFORMANCE_MODEL");

    private static OpenAiChatModel.OpenAiChatModelBuilder builder(String model) {
        return OpenAiChatModel.builder()
                .baseUrl(System.getenv("TUNEPORT_BASE_URL"))
                .apiKey(System.getenv("TUNEPORT_API_KEY"))
                .modelName(model)
                .temperature(0.0)
                .strictJsonSchema(true);
    }

    @Override
    protected List<ChatModel> models() {
        return List.of(builder(TUNED).build());
    }

    @Override
    protected ChatModel createModelWith(ChatRequestParameters parameters) {
        String model = parameters.modelName() == null ? TUNED : parameters.modelName();
        return builder(model).defaultRequestParameters(parameters).build();
    }

    @Override
    protected String customModelName() {
        return BASE;
    }

    @Override
    protected ChatRequestParameters createIntegrationSpecificParameters(int maxOutputTokens) {
        return OpenAiChatRequestParameters.builder()
                .maxOutputTokens(maxOutputTokens)
                .build();
    }

    @Override
    protected Class<? extends ChatResponseMetadata> chatResponseMetadataType(ChatModel model) {
        return OpenAiChatResponseMetadata.class;
    }

    @Override
    protected Class<? extends TokenUsage> tokenUsageType(ChatModel model) {
        return OpenAiTokenUsage.class;
    }

    @Override
    protected boolean supportsSingleImageInputAsBase64EncodedString() {
        return false; // a model of texts, and below
    }

    @Override
    protected boolean supportsSingleImageInputAsPublicURL() {
        return false;
    }

    @Override
    protected void should_fail_if_images_as_base64_encoded_strings_are_not_supported(ChatModel model) {
        // Asks LangChain4j's client to refuse; it sends them on, and the server does.
    }

    @Override
    protected void should_fail_if_images_as_public_URLs_are_not_supported(ChatModel model) {
        // As above.
    }
}

package dev.tuneport.conformance;

import static org.mockito.ArgumentMatchers.any;
import static org.mockito.ArgumentMatchers.argThat;
import static org.mockito.Mockito.atLeast;

import dev.langchain4j.model.chat.StreamingChatModel;
import dev.langchain4j.model.chat.common.AbstractStreamingChatModelIT;
import dev.langchain4j.model.chat.listener.ChatModelListener;
import dev.langchain4j.model.chat.request.ChatRequestParameters;
import dev.langchain4j.model.chat.response.ChatResponseMetadata;
import dev.langchain4j.model.chat.response.StreamingChatResponseHandler;
import dev.langchain4j.model.openai.OpenAiStreamingChatModel;
import dev.langchain4j.model.openai.OpenAiChatRequestParameters;
import dev.langchain4j.model.openai.OpenAiChatResponseMetadata;
import dev.langchain4j.model.openai.OpenAiTokenUsage;
import dev.langchain4j.model.output.TokenUsage;
import java.util.List;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.mockito.InOrder;

/** LangChain4j's own tests of streaming chat models; see ChatModelTest. */
@EnabledIfEnvironmentVariable(named = "TUNEPORT_CONFORMANCE_MODEL", matches = ".+")
class StreamingChatModelTest extends AbstractStreamingChatModelIT {

    private static final String BASE = ChatModelTest.BASE;
    private static final String TUNED = ChatModelTest.TUNED;

    private static OpenAiStreamingChatModel.OpenAiStreamingChatModelBuilder builder(String model) {
        return OpenAiStreamingChatModel.builder()
                .baseUrl(System.getenv("TUNEPORT_BASE_URL"))
                .apiKey(System.getenv("TUNEPORT_API_KEY"))
                .modelName(model)
                .temperature(0.0)
                .strictJsonSchema(true);
    }

    @Override
    protected List<StreamingChatModel> models() {
        return List.of(builder(TUNED).build());
    }

    @Override
    protected StreamingChatModel createModelWith(ChatRequestParameters parameters) {
        String model = parameters.modelName() == null ? TUNED : parameters.modelName();
        return builder(model).defaultRequestParameters(parameters).build();
    }

    @Override
    public StreamingChatModel createModelWith(ChatModelListener listener) {
        return builder(TUNED).listeners(listener).build();
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
    protected Class<? extends ChatResponseMetadata> chatResponseMetadataType(StreamingChatModel model) {
        return OpenAiChatResponseMetadata.class;
    }

    @Override
    protected Class<? extends TokenUsage> tokenUsageType(StreamingChatModel model) {
        return OpenAiTokenUsage.class;
    }

    @Override
    protected void verifyToolCallbacks(StreamingChatResponseHandler handler, InOrder order, String id) {
        verifyCall(handler, order, 0, id, "getWeather");
    }

    @Override
    protected void verifyToolCallbacks(StreamingChatResponseHandler handler, InOrder order, String first, String second) {
        verifyCall(handler, order, 0, first, "getWeather");
        verifyCall(handler, order, 1, second, "getTime");
    }

    /** A call's arguments came in pieces, then whole. */
    private static void verifyCall(
            StreamingChatResponseHandler handler, InOrder order, int index, String id, String name) {
        order.verify(handler, atLeast(1))
                .onPartialToolCall(
                        argThat(call -> call.index() == index && call.id().equals(id) && call.name().equals(name)),
                        any());
        order.verify(handler)
                .onCompleteToolCall(argThat(call -> call.index() == index
                        && call.toolExecutionRequest().id().equals(id)
                        && call.toolExecutionRequest().name().equals(name)));
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
    protected void should_fail_if_images_as_base64_encoded_strings_are_not_supported(StreamingChatModel model) {
        // Asks LangChain4j's client to refuse; it sends them on, and the server does.
    }

    @Override
    protected void should_fail_if_images_as_public_URLs_are_not_supported(StreamingChatModel model) {
        // As above.
    }
}

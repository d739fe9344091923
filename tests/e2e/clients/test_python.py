"""Python's clients, unmodified: the openai SDK in all its ways of calling, LangChain and LiteLLM."""

import asyncio
import os
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.e2e.conftest import Running

BASE = "SmolLM2-135M-Instruct"
FRANCE: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."


class City(BaseModel):
    """Where somebody lives."""

    name: str
    country: str


def test_the_sdks_stream_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=BASE, messages=FRANCE, temperature=0, max_tokens=30) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds[-1] == "content.done"
    assert "content.delta" in kinds
    assert final.choices[0].message.content == PARIS


def test_the_sdk_parses_what_its_stream_brings(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=BASE,
        messages=[{"role": "user", "content": "Ann lives in Rome."}],
        response_format=City,
        temperature=0,
        max_tokens=100,
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, City)


def test_the_sdks_tools_are_parsed(client: openai.OpenAI) -> None:
    completion = client.chat.completions.parse(
        model=BASE,
        messages=[{"role": "user", "content": "Ann lives in Rome, Italy."}],
        tools=[openai.pydantic_function_tool(City, name="note_city")],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
        max_tokens=100,
    )
    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    assert isinstance(calls[0].function.parsed_arguments, City)


def test_raw_responses_have_openais_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=BASE, messages=FRANCE, max_tokens=2)
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.headers["openai-version"] == "2020-10-01"
    assert float(raw.headers["openai-processing-ms"]) > 0
    assert raw.parse().model == BASE
    with client.chat.completions.with_streaming_response.create(model=BASE, messages=FRANCE, max_tokens=2) as streamed:
        assert b"chat.completion" in streamed.read()


def test_the_async_sdk(running: Running) -> None:
    async def check() -> None:
        async with openai.AsyncOpenAI(base_url=running.server.base_url, api_key=running.server.api_key) as client:
            whole, stream = await asyncio.gather(
                client.chat.completions.create(model=BASE, messages=FRANCE, temperature=0),
                client.chat.completions.create(model=BASE, messages=FRANCE, temperature=0, stream=True),
            )
            assert whole.choices[0].message.content == PARIS
            chunks = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            assert "".join(chunks) == PARIS
            async with client.responses.stream(
                model=BASE, input="What is the capital of France?", temperature=0
            ) as events:
                final = await events.get_final_response()
            assert final.output_text == PARIS
            assert BASE in [model.id async for model in client.models.list()]

    asyncio.run(check())


def test_wrong_keys_are_the_sdks_authentication_error(running: Running) -> None:
    wrong = openai.OpenAI(base_url=running.server.base_url, api_key="sk-wrong-wrong-wrong")
    with pytest.raises(openai.AuthenticationError) as raised:
        wrong.chat.completions.create(model=BASE, messages=FRANCE)
    assert raised.value.code == "invalid_api_key"


def test_langchain(running: Running) -> None:
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings
    from pydantic import SecretStr

    @tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"Rain in {city}."

    where: dict[str, Any] = {"base_url": running.server.base_url, "api_key": SecretStr(running.server.api_key)}
    chat = ChatOpenAI(model=BASE, temperature=0, max_tokens=100, **where)  # pyright: ignore[reportCallIssue]
    question = "What is the capital of France?"
    assert chat.invoke(question).content == PARIS
    assert "".join(str(chunk.content) for chunk in chat.stream(question)) == PARIS
    assert asyncio.run(chat.ainvoke(question)).content == PARIS
    assert isinstance(chat.with_structured_output(City).invoke("Ann lives in Rome, Italy."), City)
    asked = chat.bind_tools([get_weather], tool_choice="required", parallel_tool_calls=False)
    call = asked.invoke("What is the weather in Paris?")
    assert call.tool_calls[0]["name"] == "get_weather"
    result = ToolMessage(get_weather.invoke(call.tool_calls[0]["args"]), tool_call_id=call.tool_calls[0]["id"])
    assert chat.bind_tools([get_weather]).invoke([HumanMessage("What is the weather in Paris?"), call, result])
    assert ChatOpenAI(model=BASE, use_responses_api=True, temperature=0, **where).invoke(question).text == PARIS
    embed = OpenAIEmbeddings(
        model="all-MiniLM-L6-v2",
        check_embedding_ctx_length=False,  # else LangChain sends token ids of OpenAI's tokenizer, which it downloads
        **where,
    )
    assert len(embed.embed_query("a cat")) == 384


def test_litellm(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network at import
    import litellm

    where: dict[str, Any] = {"api_base": running.server.base_url, "api_key": running.server.api_key}
    answer: Any = litellm.completion(model=f"openai/{BASE}", messages=FRANCE, temperature=0, **where)
    assert answer.choices[0].message.content == PARIS
    chunks: Any = litellm.completion(model=f"openai/{BASE}", messages=FRANCE, temperature=0, stream=True, **where)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == PARIS
    embedded: Any = litellm.embedding(model="openai/all-MiniLM-L6-v2", input=["a cat"], **where)
    assert len(embedded.data[0]["embedding"]) == 384
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(model="openai/ft:none", messages=FRANCE, **where)
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(model=f"openai/{BASE}", messages=[{"role": "user", "content": "word " * 20_000}], **where)

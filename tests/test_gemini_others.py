"""Gemini besides content: embeddings, images, and videos, which are made after their request."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

genai = pytest.importorskip("google.genai", reason="Google's SDK is not installed")
from .test_gemini import Asking, asking, on_vertex, told  # noqa: E402 - needs Google's SDK

__all__ = ["asking"]
EMBED = "gemini-embedding-001"


@pytest.fixture(autouse=True)
def old_methods() -> Iterator[None]:
    """The SDK warns that models of images are to be replaced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


PLACE = "/projects/p/locations/us-central1/publishers/google"


def test_embeddings(asking: Asking) -> None:
    config = {"task_type": "RETRIEVAL_QUERY", "output_dimensionality": 8}
    asked: dict[str, Any] = {"model": EMBED, "contents": ["one", "two"], "config": config}
    found = asking.call(
        asking.models(asking.client()).embed_content, **asked, posthog_distinct_id="u1"
    )
    assert len(found.embeddings) == 2
    (event,) = asking.sink.wait_for(1)
    assert event.event == "$ai_embedding"
    assert event.distinct_id == "u1"
    assert told(event.properties) == {
        "$ai_lib": "posthog-llm",
        "$ai_provider": "gemini",
        "$ai_model": EMBED,
        "posthog_llm_requested_model": EMBED,
        "$ai_model_parameters": config,
        "$ai_http_status": 200,
        "$ai_stream": False,
        "$ai_input": ["one", "two"],
        "posthog_llm_endpoint": "embed_content",
        "posthog_llm_outcome": "ok",
        "posthog_llm_request_id": "req_test",
        "posthog_llm_retries": 0,
    }


def test_embeddings_of_vertex_tell_their_tokens(asking: Asking) -> None:
    client = on_vertex(asking)
    asking.call(
        asking.models(client).embed_content, model="text-embedding-005", contents=["one", "two"]
    )
    (event,) = asking.sink.wait_for(1)
    assert event.event == "$ai_embedding"
    assert event.properties["$ai_provider"] == "google-vertex-us"
    assert event.properties["$ai_input"] == ["one", "two"]
    assert event.properties["$ai_input_tokens"] == 18


def test_embedding_of_one_content(provider: ScriptedProvider, sink: MemorySink) -> None:
    client = on_vertex(Asking(provider, sink, "sync"))
    place = f"{PLACE}/models/gemini-embedding-2:embedContent"
    counted = {
        "promptTokenCount": 7,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 7}],
    }
    answer = {"embedding": {"values": [0.5] * 8}, "usageMetadata": counted}
    provider.script(place, Reply.json(answer))
    client.models.embed_content(model="gemini-embedding-2", contents="one")
    if not provider.requests[0].path.endswith(":embedContent"):
        pytest.skip("this version of the SDK has another method for it")
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_input"] == "one"
    assert event.properties["$ai_input_tokens"] == 7


def test_images(asking: Asking) -> None:
    config = {"number_of_images": 2, "aspect_ratio": "1:1"}
    found = asking.call(
        asking.models(on_vertex(asking)).generate_images,
        model="imagen-4.0-generate-001",
        prompt="A fox",
        config=config,
        posthog_trace_id="t1",
    )
    assert len(found.generated_images) == 2
    (event,) = asking.sink.wait_for(1)
    image = {"type": "image", "media_type": "image/png", "data": "[image/png, 8 bytes]"}
    assert event.properties["$ai_trace_id"] == "t1"
    assert event.properties["$ai_input"] == [
        {"role": "user", "content": [{"type": "text", "text": "A fox"}]}
    ]
    assert event.properties["$ai_output_choices"] == [{"role": "assistant", "content": [image]}] * 2
    assert event.properties["posthog_llm_images"] == 2
    assert event.properties["$ai_model_parameters"] == {"sample_count": 2, "aspect_ratio": "1:1"}
    assert not [name for name in event.properties if name.endswith("_tokens")]


def test_filtered_images(provider: ScriptedProvider, sink: MemorySink) -> None:
    reason = "The image was filtered"
    path = f"{PLACE}/models/imagen-4.0-generate-001:predict"
    provider.script(path, Reply.json({"predictions": [{"raiFilteredReason": reason}]}))
    client = on_vertex(Asking(provider, sink, "sync"))
    client.models.generate_images(model="imagen-4.0-generate-001", prompt="A fox")
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_images"] == 0
    assert event.properties["$ai_output_choices"] == [
        {"role": "assistant", "content": [], "filtered": reason}
    ]
    assert "$ai_is_error" not in event.properties


def test_edited_images(asking: Asking) -> None:
    client, types = on_vertex(asking), genai.types
    fox = types.Image(image_bytes=bytes(3000), mime_type="image/png")
    raw = types.RawReferenceImage(reference_id=1, reference_image=fox)
    asking.call(
        asking.models(client).edit_image,
        model="imagen-3.0-capability-001",
        prompt="A red fox",
        reference_images=[raw],
        posthog_distinct_id="u1",
    )
    asking.call(
        asking.models(client).upscale_image,
        model="imagen-4.0-upscale-preview",
        image=fox,
        upscale_factor="x2",
    )
    edited, upscaled = asking.sink.wait_for(2)
    shown = {"type": "image", "media_type": "image/png", "data": "[image/png, 3000 bytes]"}
    assert edited.distinct_id == "u1"
    assert edited.properties["$ai_input"] == [
        {"role": "user", "content": [{"type": "text", "text": "A red fox"}, shown]}
    ]
    assert shown in upscaled.properties["$ai_input"][0]["content"]
    assert upscaled.properties["$ai_provider"] == "google-vertex-us"


VIDEO: dict[str, Any] = {"model": "veo-3.0-generate-001", "prompt": "A fox runs"}


def begun(asking: Asking, place: str, client: Any, **more: Any) -> Any:
    """Return the operation of a video."""
    try:
        return asking.call(asking.models(client).generate_videos, **VIDEO, **more)
    except ValueError:
        assert place == "google ai"
        pytest.skip("this version of the SDK makes videos on Vertex only")


@pytest.mark.parametrize("place", ["google ai", "vertex"])
def test_video_is_captured_when_it_is_done(asking: Asking, place: str) -> None:
    client = asking.client() if place == "google ai" else on_vertex(asking)
    config = {"duration_seconds": 8, "aspect_ratio": "16:9"}
    operation = begun(asking, place, client, config=config, posthog_distinct_id="u1")
    asking.sink.wait_for(0)
    operations = client.operations if asking.how == "sync" else client.aio.operations
    path = f"/{operation.name}" if place == "google ai" else ""
    if path:
        asking.provider.script(path, Reply.json({"name": operation.name}))
        assert not asking.call(operations.get, operation=operation).done
        asking.sink.wait_for(0)
    for _ in range(2):  # the second tells nothing new
        assert asking.call(operations.get, operation=operation).done
    (event,) = asking.sink.wait_for(1)
    assert uuid.UUID(event.uuid)
    assert event.distinct_id == "u1"
    assert event.properties["$ai_model"] == "veo-3.0-generate-001"
    assert event.properties["$ai_input"] == [
        {"role": "user", "content": [{"type": "text", "text": "A fox runs"}]}
    ]
    (said,) = event.properties["$ai_output_choices"]
    assert said["content"][0]["type"] == "video"
    assert event.properties["posthog_llm_endpoint"] == "predict_video"
    assert event.properties["posthog_llm_videos"] == 1
    assert event.properties["posthog_llm_video_seconds"] == 8
    assert event.properties["$ai_model_parameters"] == {
        "duration_seconds": 8,
        "aspect_ratio": "16:9",
    }


@pytest.fixture
def prices() -> Iterator[None]:
    image, second = (
        posthog_llm.Price(input=0, image=0.04),
        posthog_llm.Price(input=0, video_second=0.4),
    )
    known = {"imagen-4.0-generate-001": image, "veo-3.0-generate-001": second}
    posthog_llm.configure(prices=known)
    yield
    posthog_llm.configure(prices=None)


@pytest.mark.usefixtures("prices")
def test_the_callers_prices(provider: ScriptedProvider, sink: MemorySink) -> None:
    asking = Asking(provider, sink, "sync")
    client = on_vertex(asking)
    client.models.generate_images(
        model="imagen-4.0-generate-001", prompt="A fox", config={"number_of_images": 2}
    )
    operation = begun(asking, "vertex", client, config={"duration_seconds": 8})
    client.operations.get(operation)
    costs = [event.properties["$ai_total_cost_usd"] for event in sink.wait_for(2)]
    assert costs == pytest.approx([0.08, 3.2])


def test_video_that_failed(provider: ScriptedProvider, sink: MemorySink) -> None:
    asking = Asking(provider, sink, "sync")
    client = on_vertex(asking)
    operation = begun(asking, "vertex", client)
    failed = {"name": operation.name, "done": True, "error": {"code": 3, "message": "no foxes"}}
    path = f"{PLACE}/models/veo-3.0-generate-001:fetchPredictOperation"
    provider.script(path, Reply.json(failed))
    client.operations.get(operation)
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert event.properties["$ai_error"] == "no foxes"
    assert "posthog_llm_video_seconds" not in event.properties


def test_video_that_another_process_began(provider: ScriptedProvider, sink: MemorySink) -> None:
    client = Asking(provider, sink, "sync").client()
    operation = genai.types.GenerateVideosOperation(name="models/veo-3.0/operations/other")
    client.operations.get(operation)
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_model"] == "veo-3.0"
    assert "$ai_input" not in event.properties

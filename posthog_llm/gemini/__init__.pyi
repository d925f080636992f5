"""What `Client` is for type checkers: the SDK's, whose methods that run a model take ours."""

# mypy: disable-error-code="override, assignment, misc"
# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false
# pyright: reportPrivateUsage=false, reportMissingTypeStubs=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false
# pyright: reportInvalidTypeForm=false, reportUnknownMemberType=false

from collections.abc import AsyncIterator, Iterator

import google.auth.credentials
from google.genai import (
    batches as batches,
    caches as caches,
    chats as chats,
    errors as errors,
    files as files,
    live as live,
    models as models,
    operations as operations,
    pagers as pagers,
    tokens as tokens,
    tunings as tunings,
    types as types,
    version as version,
    __version__ as __version__,
)
from google.genai.client import (
    AsyncClient as _SdkAsyncClient,
    Client as _SdkClient,
    DebugConfig as _DebugConfig,
)
from typing_extensions import Unpack

from ..types import CallArguments, ClientArguments

class _Models(models.Models):
    def generate_content(
        self,
        *,
        model: str,
        contents: types.ContentListUnion | types.ContentListUnionDict,
        config: types.GenerateContentConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.GenerateContentResponse: ...
    def generate_content_stream(
        self,
        *,
        model: str,
        contents: types.ContentListUnion | types.ContentListUnionDict,
        config: types.GenerateContentConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> Iterator[types.GenerateContentResponse]: ...
    def embed_content(
        self,
        *,
        model: str,
        contents: types.ContentListUnion | types.ContentListUnionDict,
        config: types.EmbedContentConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.EmbedContentResponse: ...
    def generate_images(
        self,
        *,
        model: str,
        prompt: str,
        config: types.GenerateImagesConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.GenerateImagesResponse: ...
    def edit_image(
        self,
        *,
        model: str,
        prompt: str,
        reference_images: list[types._ReferenceImageAPIOrDict],
        config: types.EditImageConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.EditImageResponse: ...
    def upscale_image(
        self,
        *,
        model: str,
        image: types.ImageOrDict,
        upscale_factor: str,
        config: types.UpscaleImageConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.UpscaleImageResponse: ...
    def recontext_image(
        self,
        *,
        model: str,
        source: types.RecontextImageSourceOrDict,
        config: types.RecontextImageConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.RecontextImageResponse: ...
    def segment_image(
        self,
        *,
        model: str,
        source: types.SegmentImageSourceOrDict,
        config: types.SegmentImageConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.SegmentImageResponse: ...
    def generate_videos(
        self,
        *,
        model: str,
        prompt: str | None = None,
        image: types.ImageOrDict | None = None,
        video: types.VideoOrDict | None = None,
        source: types.GenerateVideosSourceOrDict | None = None,
        config: types.GenerateVideosConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.GenerateVideosOperation: ...

class _AsyncModels(models.AsyncModels):
    async def generate_content(
        self,
        *,
        model: str,
        contents: types.ContentListUnion | types.ContentListUnionDict,
        config: types.GenerateContentConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.GenerateContentResponse: ...
    async def generate_content_stream(
        self,
        *,
        model: str,
        contents: types.ContentListUnion | types.ContentListUnionDict,
        config: types.GenerateContentConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> AsyncIterator[types.GenerateContentResponse]: ...
    async def embed_content(
        self,
        *,
        model: str,
        contents: types.ContentListUnion | types.ContentListUnionDict,
        config: types.EmbedContentConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.EmbedContentResponse: ...
    async def generate_images(
        self,
        *,
        model: str,
        prompt: str,
        config: types.GenerateImagesConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.GenerateImagesResponse: ...
    async def edit_image(
        self,
        *,
        model: str,
        prompt: str,
        reference_images: list[types._ReferenceImageAPIOrDict],
        config: types.EditImageConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.EditImageResponse: ...
    async def upscale_image(
        self,
        *,
        model: str,
        image: types.ImageOrDict,
        upscale_factor: str,
        config: types.UpscaleImageConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.UpscaleImageResponse: ...
    async def recontext_image(
        self,
        *,
        model: str,
        source: types.RecontextImageSourceOrDict,
        config: types.RecontextImageConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.RecontextImageResponse: ...
    async def segment_image(
        self,
        *,
        model: str,
        source: types.SegmentImageSourceOrDict,
        config: types.SegmentImageConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.SegmentImageResponse: ...
    async def generate_videos(
        self,
        *,
        model: str,
        prompt: str | None = None,
        image: types.ImageOrDict | None = None,
        video: types.VideoOrDict | None = None,
        source: types.GenerateVideosSourceOrDict | None = None,
        config: types.GenerateVideosConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.GenerateVideosOperation: ...

class _Chat(chats.Chat):
    def send_message(
        self,
        message: list[types.PartUnionDict] | types.PartUnionDict,
        config: types.GenerateContentConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.GenerateContentResponse: ...
    def send_message_stream(
        self,
        message: list[types.PartUnionDict] | types.PartUnionDict,
        config: types.GenerateContentConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> Iterator[types.GenerateContentResponse]: ...

class _AsyncChat(chats.AsyncChat):
    async def send_message(
        self,
        message: list[types.PartUnionDict] | types.PartUnionDict,
        config: types.GenerateContentConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> types.GenerateContentResponse: ...
    async def send_message_stream(
        self,
        message: list[types.PartUnionDict] | types.PartUnionDict,
        config: types.GenerateContentConfigOrDict | None = None,
        **posthog: Unpack[CallArguments],
    ) -> AsyncIterator[types.GenerateContentResponse]: ...

class _Chats(chats.Chats):
    def create(
        self,
        *,
        model: str,
        config: types.GenerateContentConfigOrDict | None = None,
        history: list[types.ContentOrDict] | None = None,
    ) -> _Chat: ...

class _AsyncChats(chats.AsyncChats):
    def create(
        self,
        *,
        model: str,
        config: types.GenerateContentConfigOrDict | None = None,
        history: list[types.ContentOrDict] | None = None,
    ) -> _AsyncChat: ...

class _AsyncClient(_SdkAsyncClient):
    @property
    def models(self) -> _AsyncModels: ...
    @property
    def chats(self) -> _AsyncChats: ...

class Client(_SdkClient):
    def __init__(
        self,
        *,
        enterprise: bool | None = None,
        vertexai: bool | None = None,
        api_key: str | None = None,
        credentials: google.auth.credentials.Credentials | None = None,
        project: str | None = None,
        location: str | None = None,
        debug_config: _DebugConfig | None = None,
        http_options: types.HttpOptions | types.HttpOptionsDict | None = None,
        **posthog: Unpack[ClientArguments],
    ) -> None: ...
    @property
    def models(self) -> _Models: ...
    @property
    def chats(self) -> _Chats: ...
    @property
    def aio(self) -> _AsyncClient: ...

__all__ = ["Client", "types"]

"""The reference replica: the API of a small real-estate assistant, instrumented as a user would do it.

In: HTTP and WebSocket requests. Out: answers of real models and look-ups, and the metrics they make.
Promise: every number is measured, none is drawn; without PostgreSQL or Redis only what needs them says 503.
Run it: `uvicorn producers.api:app`.
"""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Path, Response, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field

from producers.asgi import instrument, lifespan
from producers.reference.listings import Listings, NotThere, Unavailable
from producers.reference.measures import DECISIONS, INFERENCE_MS, INFERENCE_S, QUALIFICATIONS, REFUSED, UNLABELLED
from producers.reference.models import Decision, Models
from producers.reference.settings import Settings
from producers.reference.sockets import Pace, Sockets

MAX_TEXT: Final = 2000

Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class Body(BaseModel):
    """A request's body: members that nobody knows are refused, numbers are finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SellerFields(Body):
    """What is known of a seller beside the words."""

    asking_ratio: float = Field(gt=0, le=10, description="asking price / estimated value")
    timeline_months: float = Field(ge=0, le=600)
    condition: int = Field(ge=1, le=5)
    has_agent: bool
    mortgage_late: bool


class SellerLead(Body):
    """A seller's first message."""

    text: Text
    fields: SellerFields


class Utterance(Body):
    """A message to decode; with `label`, what its writer is known to mean."""

    text: Text
    label: str | None = Field(default=None, max_length=64)


class BuyerLead(Body):
    """What the scorer looks at."""

    budget_ratio: float = Field(gt=0, le=10)
    days_since_contact: float = Field(ge=0)
    messages_7d: float = Field(ge=0)
    viewings_30d: float = Field(ge=0)
    preapproved: float = Field(ge=0, le=1)
    pages_viewed_7d: float = Field(ge=0)
    reply_minutes: float = Field(ge=0)
    timeline_months: float = Field(ge=0)
    referred: float = Field(ge=0, le=1)


class Assistant:
    """The models and the listings of one replica; the routes call nothing else."""

    def __init__(self, models: Models, listings: Listings, settings: Settings) -> None:
        self.models = models
        self.listings = listings
        self.sockets = Sockets(settings.ws_origins, settings.ws_per_client)
        self.ws_messages_per_s = settings.ws_messages_per_s

    def qualify(self, text: str, fields: Mapping[str, float | bool]) -> Decision:
        """Classify a seller."""
        found = self.models.seller.classify(text, fields)
        QUALIFICATIONS.labels(found.label).inc()
        return found

    def decode(self, text: str, label: str | None) -> Decision:
        """Find out what a message asks for, and compare with what is known."""
        found = self.models.intent.classify(text)
        if label is None:
            UNLABELLED.labels().inc()
        else:
            DECISIONS.labels("true" if found.label == label else "false").inc()
        return found

    def score(self, fields: Mapping[str, float]) -> float:
        """Return the probability that a buyer closes within 90 days. One measurement feeds both histograms."""
        started_at = perf_counter()
        found = self.models.score.score(fields)
        elapsed_s = perf_counter() - started_at
        INFERENCE_S.labels().observe(elapsed_s)
        INFERENCE_MS.labels().observe(elapsed_s * 1000)
        return found


@asynccontextmanager
async def assistant_lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Load the models and start connecting; a model file that cannot be read stops the start."""
    settings = Settings.read(os.environ)
    models = Models.load(settings.seller_model_file, settings.intent_model_file, settings.score_model_file)
    listings = Listings(settings)
    await listings.open()
    app.state.assistant = Assistant(models, listings, settings)
    try:
        yield
    finally:
        await listings.aclose()


app = FastAPI(title="Reference replica", lifespan=lifespan(assistant_lifespan))
# Probes go on when nobody else asks: counted, they would hide that, and blur what is usual.
instrument(app, exclude=("/healthz", "/readyz"))


def assistant() -> Assistant:
    """Return the assistant that the lifespan made."""
    found: Assistant = app.state.assistant
    return found


@app.post("/seller/qualify")
async def qualify(lead: SellerLead) -> dict[str, Any]:
    """Say what became of a seller lead."""
    found = assistant().qualify(lead.text, lead.fields.model_dump())
    return {"outcome": found.label, "confidence": found.confidence}


@app.post("/intent/decode")
async def decode(message: Utterance) -> dict[str, Any]:
    """Say what a message asks for."""
    found = assistant().decode(message.text, message.label)
    return {"intent": found.label, "confidence": found.confidence}


@app.post("/score")
async def score(lead: BuyerLead) -> dict[str, float]:
    """Say how likely a buyer closes within 90 days."""
    return {"score": assistant().score(lead.model_dump())}


@app.get("/listing/{number}")
async def listing(number: Annotated[int, Path(ge=1, le=2**31 - 1)]) -> Response:
    """Return a listing, from the cache or from PostgreSQL."""
    try:
        return Response(await assistant().listings.get(number), media_type="application/json")
    except NotThere:
        raise HTTPException(404, "no such listing") from None
    except Unavailable as error:
        raise HTTPException(503, f"the listings are away: {error}", headers={"Retry-After": "2"}) from None


@app.websocket("/ws")
async def converse(socket: WebSocket) -> None:
    """Answer each message, text or `{"text", "label"}`, with its text and intent: a probe tells its own answer by it.

    Refused before it is accepted (403): a page of another origin, and more sockets than a client may have.
    """
    sockets = assistant().sockets
    client = socket.client.host if socket.client else "unknown"
    if (why := sockets.refusal(socket.headers.get("origin"), socket.headers.get("host"), client)) is not None:
        REFUSED.labels(why).inc()
        await socket.close(1008, why)
        return
    sockets.opened(client)
    try:
        await socket.accept()
        await _converse(socket)
    except WebSocketDisconnect:
        return
    finally:
        sockets.closed(client)


async def _converse(socket: WebSocket) -> None:
    pace = Pace(assistant().ws_messages_per_s)
    while True:
        message = parse(await socket.receive_text())
        if message is None:
            return await socket.close(1007, "text of 1 to 2000 characters expected")
        if not pace.takes():
            return await socket.close(1008, "too many messages")
        found = assistant().decode(message.text, message.label)
        await socket.send_json({"text": message.text, "intent": found.label, "confidence": found.confidence})


def parse(text: str) -> Utterance | None:
    """Read a WebSocket message; None when it is none."""
    try:
        return Utterance.model_validate_json(text) if text.startswith("{") else Utterance(text=text)
    except ValueError:
        return None


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that the process lives."""
    return {"status": "ok"}


@app.get("/readyz")
async def readyz() -> dict[str, Any]:
    """Say that requests are served: the models are loaded. Missing listings are told of, but stop nothing else."""
    return {"ready": True, "listings": assistant().listings.pool is not None}

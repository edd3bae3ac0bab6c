"""``/v1/pricing``: what a call would cost, and what the models cost now.

Nothing is written and nothing is charged. The same code prices as in the gateway, so a calculation with the values of a
record gives the record's lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from counterfoil.api import answers, reading
from counterfoil.clock import wall_ms
from counterfoil.pricing import listing
from counterfoil.pricing.book import PriceBook
from counterfoil.record.charge import Charge, CostState
from counterfoil.record.money import CURRENCY, dollars
from counterfoil.record.times import moment_ms
from counterfoil.record.usage import Usage, UsageSource
from counterfoil.surfaces import metering
from counterfoil.tenancy.directory import Directory
from counterfoil.tenancy.keys import KeyKind
from counterfoil.tenancy.names import ALL_TEAMS
from counterfoil.tenancy.principal import ScopeMissing

PAGE: Final = 100
PAGE_MAX: Final = 1000
_REQUIRED: Final = ("provider", "model", "usage")


class Calculation(Struct, kw_only=True):
    """What ``POST /v1/pricing/calculate`` takes. ``usage`` is a record's, or a provider's own usage object."""

    provider: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    endpoint: str | None = None
    at: str | None = None
    request_started_at: str | None = None
    service_tier: str | None = None
    region: str | None = None
    native_model: str | None = None
    provider_cost_nanos: Annotated[int, Meta(ge=0, le=1 << 53)] | None = None


_decoder = msgspec.json.Decoder(Calculation)
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": list(_REQUIRED),
                    "properties": {
                        "provider": {"type": "string", "description": "A configured or a catalogue provider."},
                        "model": {"type": "string", "description": "The model by any name the provider gives it."},
                        "usage": {"type": "object", "description": "A record's usage, or a provider's usage object."},
                        "endpoint": {"type": "string"},
                        "at": {"type": "string", "format": "date-time", "description": "When. Default: now."},
                        "request_started_at": {"type": "string", "format": "date-time", "description": "As at."},
                        "service_tier": {"type": "string", "description": "The tier as served."},
                        "region": {"type": "string"},
                        "native_model": {"type": "string", "description": "The model the provider says it served."},
                        "provider_cost_nanos": {
                            "type": "integer",
                            "minimum": 0,
                            "maximum": 1 << 53,
                            "description": "What the provider says it charged; counts only where no price is known.",
                        },
                    },
                }
            }
        },
    }
}
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "A field is missing or wrong; fields or field names it."},
    401: {"description": "No key, or one that cannot be used; reason says why."},
    403: {"description": "A management key without the scope prices:read."},
    404: {"description": "No price is known for this model at this provider; message says why."},
}
_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {code: _ANSWERS[code] for code in (400, 401, 403)}


def team_of(directory: Directory) -> Callable[[Request], str | None]:
    """Give whose prices a request sees: its key's team, or None (everybody's) for a key of all teams.

    Any inference key may ask; a management key needs ``prices:read``. Raises what :func:`reading.principal` raises.
    """

    def team(request: Request) -> str | None:
        holder = reading.principal(directory, request)
        if holder.kind is KeyKind.MANAGEMENT:
            holder.need("prices:read")
        return None if holder.team_id == ALL_TEAMS else holder.team_id

    return team


def _everybody(_: Request) -> str | None:
    return None


def router(book: Callable[[], PriceBook], team: Callable[[Request], str | None] = _everybody) -> APIRouter:
    """The endpoints over the book in force.

    ``team`` gives the team whose own prices a request sees, or raises; without it anybody may ask, and only prices for
    everybody are shown.
    """
    routes = APIRouter(tags=["pricing"])

    @routes.post("/v1/pricing/calculate", summary="What a call would cost", responses=_ANSWERS, openapi_extra=_BODY)
    async def calculate(request: Request) -> Response:
        """Price a usage as the gateway would, line by line."""
        payer = team(request)
        return _calculate(book(), await request.body(), payer)

    @routes.get("/v1/pricing/models", summary="What the models cost now", responses=_REFUSALS)
    def models(  # not async: making many plans takes milliseconds, which belong to a thread
        request: Request,
        provider: Annotated[str | None, Query(description="Only this provider's models.")] = None,
        model: Annotated[str | None, Query(description="Only models whose name contains this.")] = None,
        service_tier: Annotated[str | None, Query(description="The rates of this service tier.")] = None,
        region: Annotated[str | None, Query(description="The rates of calls served in this region.")] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = PAGE,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        """Rates in force, with the rule of each, by provider and model."""
        payer, in_force, now = team(request), book(), wall_ms()
        part = "" if model is None else model.lower()
        names = [pair for pair in listing.names(in_force, provider) if part in pair[1].lower()]
        page = names[offset : offset + limit]
        return answers.json(
            {
                "ok": True,
                "book": in_force.digest,
                "source": in_force.lists.catalog.source,
                "currency": CURRENCY,
                "total": len(names),
                "limit": limit,
                "offset": offset,
                "data": [
                    listing.listed(in_force, *pair, now, tier=service_tier, team=payer, region=region) for pair in page
                ],
            }
        )

    @routes.get("/v1/pricing/book", summary="The price book in force", responses=_REFUSALS)
    def whole(request: Request) -> Response:
        """Its canonical bytes, whose SHA-256 is the book that records name. Needs a management key of all teams."""
        if team(request) is not None:
            raise ScopeMissing("admin", "The book holds every team's prices; this key sees its own only.")
        return answers.raw(book().data)

    return routes


def _calculate(book: PriceBook, body: bytes, team: str | None) -> Response:
    try:
        asked = _decoder.decode(body)
        at_ms = _moment(asked.at or asked.request_started_at)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        return answers.refusal("invalid_request", message=str(error))
    if not asked.provider or not asked.model or asked.usage is None:
        missing = [name for name in _REQUIRED if getattr(asked, name) in (None, "")]
        return answers.refusal("missing_required_fields", fields=missing)
    usage = _usage(asked.usage)
    if usage is None:
        return answers.refusal("invalid_request", field="usage", message="This is not a usage object.")
    charge = book.price(
        asked.provider,
        asked.model,
        usage,
        at_ms,
        service_tier=asked.service_tier,
        team_id=team,
        native_model=asked.native_model,
        region=asked.region,
        provider_cost_nanos=asked.provider_cost_nanos,
    )
    plan = book.plan(asked.provider, asked.model, at_ms, service_tier=asked.service_tier, team_id=team)
    sheet = plan.sheet(usage.prompt_tokens)
    if charge.state is CostState.UNKNOWN and not sheet.priced and not sheet.free:
        return answers.refusal("pricing_not_found", message=charge.reason)
    return answers.json(_answer(asked, usage, charge, book.digest))


def _answer(asked: Calculation, usage: Usage, charge: Charge, digest: str) -> dict[str, Any]:
    return {
        "ok": True,
        "provider": asked.provider,
        "model": asked.model,
        "usage": usage,
        "currency": CURRENCY,
        "cost_nanos": charge.nanos,
        "cost": None if charge.state is CostState.UNKNOWN else dollars(charge.nanos),
        "cost_state": charge.state,
        "cost_reason": charge.reason,
        "pricing_lines": charge.lines,
        "book": digest,
    }


def _moment(text: str | None) -> int:
    return wall_ms() if text is None else moment_ms(text)


def _usage(given: dict[str, Any]) -> Usage | None:
    """``given`` in our own convention, or as a provider words it; None when it is neither."""
    if given.keys() <= _OWN_FIELDS:
        try:
            own = msgspec.convert({"source": UsageSource.REPORTED, **given}, Usage)
        except msgspec.ValidationError:
            return None
        return own if _counts(own) else None
    if any(name.endswith("TokenCount") for name in given):
        return metering.gemini_usage_of(given)
    return metering.usage_of(given)


_OWN_FIELDS = frozenset(Usage.__struct_fields__)


def _counts(usage: Usage) -> bool:
    details = (usage.prompt_tokens_details, usage.completion_tokens_details, usage.meters)
    numbers = [usage.prompt_tokens, usage.completion_tokens]
    numbers += [value for part in details if part is not msgspec.UNSET for value in part.values()]
    return all(0 <= number <= COUNT_MAX for number in numbers)


COUNT_MAX: Final = 1 << 53
"""More of anything than one call can use; beyond it sums would leave the integers that JSON readers agree on."""

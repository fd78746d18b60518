"""The description of the API: a real validator takes it, it names every route, and answers are what it says."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from starlette.routing import Route

from mesh.api.app import Api
from mesh.api.openapi import ROUTES, document
from tests.api.fake_backend import PEER, FakeBackend, FakeContent
from tests.api.served import Served


def test_a_validator_takes_it() -> None:
    validate(document())  # type: ignore[arg-type]


def test_it_names_every_route() -> None:
    app = Api(FakeBackend(), FakeContent({}), PEER, "t0ken").app()
    served = {
        (method, route.path) for route in app.routes if isinstance(route, Route) for method in route.methods or ()
    }
    assert {(route.method, route.path) for route in ROUTES} == {one for one in served if one[0] != "HEAD"}


@pytest.mark.parametrize(
    "path",
    [
        *("/readyz", "/healthz", "/api/ticket", "/api/topology", "/api/raft", "/api/pins"),
        *("/api/nodes/{node}/history", "/api/nodes/{node}/runs"),
    ],
)
async def test_an_answer_is_what_it_says(api: Served, path: str) -> None:
    described: Any = (await api.http.get("/api/openapi.json")).json()
    schema = described["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": described["components"]}).validate(
        (await api.http.get(path.format(node=PEER))).json()
    )

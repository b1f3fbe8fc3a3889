import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dra_driver.config.params import SIZE_LIMIT_BYTES, parse_gpu_config
from dra_driver.model.errors import ParametersError

HEAD = {"apiVersion": "gpu.dra-driver.dev/v1alpha1", "kind": "GpuConfig"}
STRATEGIES = ["Exclusive", "TimeSlicing", "MPS"]

words = st.text() | st.sampled_from(
    ["apiVersion", "kind", "sharing", "strategy", *HEAD.values(), *STRATEGIES, "api_version"]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner) | st.dictionaries(words, inner),
    max_leaves=8,
)


def refusal(parameters: dict[str, Any]) -> str:
    with pytest.raises(ParametersError) as caught:
        parse_gpu_config(parameters, "claim team/a")
    return str(caught.value)


def test_sharing_is_optional() -> None:
    """Parameters with nothing but their header are fine, and null means absent, as everywhere in Kubernetes."""
    assert parse_gpu_config(HEAD, "claim team/a").sharing is None
    assert parse_gpu_config(HEAD | {"sharing": None}, "claim team/a").sharing is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_is_understood(strategy: str) -> None:
    """Each documented strategy is read as it is written."""
    config = parse_gpu_config(HEAD | {"sharing": {"strategy": strategy}}, "claim team/a")
    assert config.sharing is not None
    assert config.sharing.strategy == strategy


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            HEAD | {"sharng": {"strategy": "MPS"}},
            "sharng: unknown field, set to {'strategy': 'MPS'}; known: apiVersion, kind, sharing (did you mean sharing?)",
        ),
        (
            HEAD | {"sharing": {"strategy": "MPS", "limit": 3}},
            "sharing.limit: unknown field, set to 3; known: strategy",
        ),
        (
            HEAD | {"sharing": {"strategy": "mps"}},
            "sharing.strategy: 'mps' is not known; write one of Exclusive, TimeSlicing, MPS (did you mean MPS?)",
        ),
        (
            HEAD | {"sharing": {}},
            "sharing.strategy: missing; write one of Exclusive, TimeSlicing, MPS",
        ),
        (HEAD | {"sharing": "MPS"}, "sharing: 'MPS' is not an object; known: strategy"),
        (
            HEAD | {"apiVersion": "resource.nvidia.com/v1beta1"},
            "apiVersion: 'resource.nvidia.com/v1beta1' is not known; write gpu.dra-driver.dev/v1alpha1",
        ),
        (
            HEAD | {"kind": "MigDeviceConfig", "extra": 1},
            "kind: 'MigDeviceConfig' is not known; write GpuConfig (and 1 more)",
        ),
        ({"kind": "GpuConfig"}, "apiVersion: missing; write gpu.dra-driver.dev/v1alpha1"),
    ],
)
def test_refusal_names_claim_path_value_and_fix(parameters: dict[str, Any], message: str) -> None:
    """Whoever reads the pod's Events knows what to change, and where."""
    assert refusal(parameters).startswith(f"claim team/a: parameters: {message}")


def test_python_names_are_no_field_names() -> None:
    """Only the documented spelling is accepted: `api_version` is a field that we do not know."""
    assert "api_version" in refusal(HEAD | {"api_version": HEAD["apiVersion"]})


def test_size_limit_is_that_of_the_api() -> None:
    """10 KiB is what the API server stores; anything larger came another way."""
    padding = SIZE_LIMIT_BYTES - len(json.dumps(HEAD | {"x": ""}, separators=(",", ":")))
    assert "unknown field" in refusal(HEAD | {"x": "y" * padding})
    assert "Kubernetes allows 10240" in refusal(HEAD | {"x": "y" * (padding + 1)})


def test_bottomless_nesting_is_refused() -> None:
    """Nesting that would exhaust the stack is one more thing that is refused."""
    document: dict[str, Any] = {}
    for _ in range(5000):
        document = {"a": document}
    assert "nested too deeply" in refusal(document)


def test_half_characters_are_refused() -> None:
    """JSON can escape half a Unicode character; no line that we write may contain one."""
    message = refusal(json.loads('{"\\ud800": 1}'))
    assert message.encode().isascii()


def test_messages_are_one_short_line() -> None:
    """Foreign text is cut and escaped before it reaches Events and terminals."""
    message = refusal(HEAD | {"evil\nname" * 100: "\x1b[31m\n" * 500})
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 400


@settings(max_examples=200)
@given(body=st.dictionaries(words, anything, max_size=6), head=st.sampled_from([HEAD, {}]))
def test_any_json_is_understood_completely_or_refused(
    body: dict[str, Any], head: dict[str, str]
) -> None:
    """Nothing but ParametersError is ever raised, and what is accepted says exactly what was written."""
    written = body | head
    try:
        config = parse_gpu_config(written, "claim team/a")
    except ParametersError as error:
        assert str(error).startswith("claim team/a: ")  # noqa: PT017
    else:
        understood = config.model_dump(by_alias=True)
        assert understood == {"sharing": None} | written

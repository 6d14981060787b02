"""Settings from the environment: what they say, and what they never show."""

from __future__ import annotations

import traceback

import pytest
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pytest_tta import MockPrimitive
from pytest_tta.faults import first
from tta_primitives import WorkflowContext
from tta_primitives.integrations.settings import SettingsError, WorkflowSettings
from tta_primitives.llm import OpenAIPrimitive

SECRET = "sk-live-4242424242"


@pytest.fixture(autouse=True)
def empty(monkeypatch, tmp_path) -> None:
    """Run where there is no `.env`, without keys of this machine."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "MAX_RETRIES", "CACHE_TTL"):
        monkeypatch.delenv(name, raising=False)


class Settings(WorkflowSettings):
    openai_api_key: SecretStr
    cache_ttl: float = 3600
    max_retries: int = 3


def test_settings_of_the_guide_come_from_the_environment(monkeypatch) -> None:
    """The key is a secret, and the numbers have the guide's defaults."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("MAX_RETRIES", "5")
    settings = Settings()
    assert settings.openai_api_key.get_secret_value() == SECRET
    assert (settings.cache_ttl, settings.max_retries) == (3600, 5)
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_settings_come_from_a_file(tmp_path, monkeypatch) -> None:
    """`.env` is read where the process runs; the environment outweighs it."""
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY={SECRET}\nMAX_RETRIES=1\nX=1\n")
    monkeypatch.setenv("MAX_RETRIES", "2")
    settings = Settings()
    assert settings.openai_api_key.get_secret_value() == SECRET
    assert settings.max_retries == 2


def test_missing_and_wrong_variables_are_all_named(monkeypatch) -> None:
    """One start of the service tells everything that is to be set."""
    monkeypatch.setenv("MAX_RETRIES", "many")
    with pytest.raises(SettingsError, match="is not complete") as caught:
        Settings()
    assert str(caught.value) == (
        "Settings is not complete: OPENAI_API_KEY: not set; MAX_RETRIES: Input should "
        "be a valid integer, unable to parse string as an integer. Set them in the "
        "environment or in .env"
    )
    assert caught.value.variables == ("OPENAI_API_KEY", "MAX_RETRIES")
    assert isinstance(caught.value, ValueError)


def test_prefix_alias_and_nesting_are_in_the_name() -> None:
    """The variable is told as it must be set, not as the field is called."""

    class Pool(BaseSettings):
        size: int

    class Prefixed(WorkflowSettings):
        model_config = SettingsConfigDict(
            env_prefix="SHOP_", env_nested_delimiter="__", env_file=None
        )
        database: str
        token: SecretStr = Field(validation_alias="VAULT_TOKEN")
        pool: Pool = Field(default_factory=lambda: Pool(size=3))

    with pytest.raises(SettingsError, match=r"Set them in the environment$") as caught:
        Prefixed(pool={"size": "x"})
    assert caught.value.variables == ("SHOP_DATABASE", "VAULT_TOKEN", "SHOP_POOL__SIZE")


def test_no_error_shows_the_secret(monkeypatch) -> None:
    """Also where a validator of the user's own says too much."""

    class Careless(WorkflowSettings):
        openai_api_key: SecretStr = Field(min_length=100)
        other: str = ""

        @field_validator("other")
        @classmethod
        def check_other(cls, value: str) -> str:
            """Say more than one should."""
            raise ValueError(f"cannot use {value}")

    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("OTHER", SECRET)
    with pytest.raises(SettingsError, match="OTHER: Value error, cannot use") as caught:
        Careless()
    told = "".join(traceback.format_exception(caught.value))
    assert SECRET not in f"{told}{caught.value!r}"
    assert caught.value.__context__ is None


def test_assignment_does_not_show_the_secret_either() -> None:
    """Settings that are checked when they are changed keep what was given to them."""

    class Checked(WorkflowSettings):
        model_config = SettingsConfigDict(validate_assignment=True)

    settings = Checked()
    with pytest.raises(ValidationError, match="max_retries") as caught:
        settings.max_retries = SECRET
    assert SECRET not in str(caught.value)


def test_what_cannot_be_parsed_is_named(monkeypatch) -> None:
    """A list that is no JSON is told by its field, without the text."""

    class Listed(WorkflowSettings):
        regions: list[str]

    monkeypatch.setenv("REGIONS", f"[{SECRET}")
    with pytest.raises(SettingsError, match=r'Listed: .*"regions"') as caught:
        Listed()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_key_goes_into_the_primitive_as_it_is(monkeypatch) -> None:
    """`get_secret_value()` may be left out; neither shows the key."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    key = Settings().openai_api_key
    for given in (key, key.get_secret_value()):
        assert SECRET not in repr(OpenAIPrimitive(api_key=given, model="gpt-4o"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CACHE_TTL", "-1"),
        ("MAX_RETRIES", "-1"),
        ("ATTEMPT_TIMEOUT", "0"),
        ("TOTAL_TIMEOUT", "0"),
        ("MAX_CONCURRENCY", "0"),
        ("RATE_PER_SECOND", "0"),
    ],
)
def test_knobs_are_checked_where_they_are_read(monkeypatch, name, value) -> None:
    """A wrong number ends the start of the service, not the first request."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}: Input should be greater than"):
        WorkflowSettings()


async def test_workflow_is_built_from_the_settings(tta, monkeypatch) -> None:
    """Retries, limits and the cache are those of the environment."""
    monkeypatch.setenv("MAX_RETRIES", "1")
    monkeypatch.setenv("CACHE_TTL", "10")
    llm = MockPrimitive("llm", return_value="42")
    workflow = WorkflowSettings().resilient(llm)
    tta.faults.at("llm").fail(ConnectionError("down"), when=first(2))
    with pytest.raises(ConnectionError, match="down"):
        await workflow.execute("why?", WorkflowContext())
    assert await workflow.execute("why?", WorkflowContext()) == "42"
    assert await workflow.execute("why?", WorkflowContext()) == "42"
    assert llm.call_count == 1
    await tta.clock.advance(10)
    await workflow.execute("why?", WorkflowContext())
    assert llm.call_count == 2


def test_layers_that_are_off_are_left_out(monkeypatch) -> None:
    """Zero switches the cache and the retries off."""
    monkeypatch.setenv("MAX_RETRIES", "0")
    monkeypatch.setenv("CACHE_TTL", "0")
    shown = str(
        WorkflowSettings().resilient(MockPrimitive("llm", return_value=1)).describe()
    )
    assert "CachePrimitive" not in shown
    assert "RetryPrimitive" not in shown
    monkeypatch.setenv("MAX_CONCURRENCY", "7")
    monkeypatch.setenv("RATE_PER_SECOND", "2.5")
    shown = str(
        WorkflowSettings().resilient(MockPrimitive("llm", return_value=1)).describe()
    )
    assert "'max_concurrency': 7" in shown
    assert "'rate': 2.5" in shown


def test_a_short_value_leaves_the_message_readable(monkeypatch) -> None:
    """One letter is in every word of it."""
    monkeypatch.setenv("MAX_RETRIES", "a")
    with pytest.raises(SettingsError, match="MAX_RETRIES: Input should be a valid int"):
        WorkflowSettings()

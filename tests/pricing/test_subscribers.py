"""Settings of alerts: every mistake at once, each with its path, and nothing that could break a header."""

from pathlib import Path

import pytest
from made_shocks import subscriber

from pricing import config
from pricing.errors import ConfigError
from pricing.subscribers import Alerts, QuietHours, Smtp, Subscriber

ROOT = Path(__file__).resolve().parents[2]
GOOD = """
[alerts]
from = "Lodemark <alerts@example.org>"
base_url = "https://prices.example.org"
least_severity = 2
digest_at = "07:30"

[alerts.smtp]
host = "mail.example.org"
user = "lodemark"

[[subscribers]]
name = "Ministry"
address = "metals@ministry.example.net"
minerals = ["gallium"]
zones = ["XCN"]
quiet_hours = { from = "20:00", to = "06:30", zone = "Europe/Berlin", break_at = 4 }

[[subscribers]]
name = "Duty"
list = "operator"
address = "duty@example.org"
channels = ["email", "webhook"]
webhook = { url = "https://duty.example.org/hook", secret_environment = "DUTY_SECRET" }
"""


def load(folder, text, **others):
    (folder / "config.toml").write_text(text, "utf-8")
    for name, content in others.items():
        (folder / f"{name}.toml").write_text(content, "utf-8")
    return config.load_operation(folder / "config.toml")


def mistakes(folder, text, **others):
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **others)
    return str(caught.value)


def test_subscribers_stand_in_the_settings_or_in_a_file_that_they_name(tmp_path):
    here = load(tmp_path, GOOD)
    assert [s.name for s in here.subscribers] == ["Ministry", "Duty"] and here.alerts.domain == "example.org"
    tables, people = GOOD[: GOOD.index("[[subscribers]]")], GOOD[GOOD.index("[[subscribers]]") :]
    elsewhere = tables.replace("least_severity = 2", 'least_severity = 2\nsubscribers = "people.toml"')
    assert load(tmp_path, elsewhere, people=people).subscribers == here.subscribers
    assert "keep them in one place" in mistakes(tmp_path, elsewhere + people, people=people)
    assert "holds [[subscribers]] only" in mistakes(tmp_path, elsewhere, people=people + "[web]\nport = 1\n")
    assert "people.toml" in mistakes(tmp_path, elsewhere, people="[[subscribers")


def test_all_mistakes_are_told_at_once_each_with_its_path(tmp_path):
    text = GOOD.replace('"metals@ministry.example.net"', '"nobody"').replace('["gallium"]', '["Gallium!"]')
    text = text.replace('zones = ["XCN"]', 'zones = ["EU"]').replace('digest_at = "07:30"', 'digest_at = "7 am"')
    text = text.replace("DUTY_SECRET", "s3cret").replace("Europe/Berlin", "Berlin")
    text = text.replace("least_severity = 2", "x = 1")
    told = mistakes(tmp_path, text)
    paths = ["alerts.x", "alerts.digest_at", "subscribers.0.address", "subscribers.0.minerals.0",
             "subscribers.0.zones.0", "subscribers.0.quiet_hours.zone",
             "subscribers.1.webhook.secret_environment"]  # fmt: skip
    assert [p for p in paths if p not in told] == [] and "7 mistakes" in told


@pytest.mark.parametrize("bad", ["\r\nBcc: all@example.net", "\n", "\0", "\x85", "\u2028", "\u202e", "\x7f"])
@pytest.mark.parametrize("field", ["name", "address", "sender", "url", "base_url", "host", "user"])
def test_nothing_that_could_end_a_header_is_taken_in_any_field(field, bad):
    hook = {"url": "https://duty.example.org/hook", "secret_environment": "DUTY_SECRET"}
    smtp = {"host": "mail.example.org", "user": "lodemark"}
    fields = {
        "name": lambda: subscriber(f"Min{bad}istry", address="a@example.net"),
        "address": lambda: subscriber(address=f"a{bad}@example.net"),
        "sender": lambda: Alerts(sender=f"Lode{bad}mark <alerts@example.org>", smtp=Smtp(**smtp)),
        "url": lambda: subscriber(channels=["webhook"], webhook=hook | {"url": f"https://example.org/{bad}"}),
        "base_url": lambda: Alerts(base_url=f"https://example.org/{bad}"),
        "host": lambda: Smtp(**smtp | {"host": f"mail{bad}.example.org"}),
        "user": lambda: Smtp(**smtp | {"user": f"lode{bad}mark"}),
    }
    with pytest.raises(ValueError, match=r"one line|U\+|ASCII"):
        fields[field]()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"address": None}, "address: missing"),
        ({"channels": ["webhook"]}, "webhook table"),
        ({"channels": []}, "at least 1"),
        ({"list": "operator", "minerals": ["gallium"]}, "operator is told of everything"),
        ({"least_severity": 5}, "less than or equal to 4"),
        ({"address": "a@b@c.example.org"}, "e-mail address"),
        ({"address": "müller@example.org"}, "ASCII"),
        ({"quiet_hours": {"from": "08:00", "to": "08:00", "zone": "UTC"}}, "the same"),
        ({"address": "Min <a@example.org>"}, "e-mail address"),
        ({"webhook": {"url": "http://example.org", "secret_environment": "A"}, "channels": ["webhook"]}, "https"),
        (
            {"webhook": {"url": "https://u:p@example.org", "secret_environment": "A"}, "channels": ["webhook"]},
            "password",
        ),
        ({"webhook": {"url": "ftp://example.org", "secret_environment": "A"}, "channels": ["webhook"]}, "web address"),
    ],
)
def test_what_cannot_be_delivered_is_refused(given, says):
    with pytest.raises(ValueError, match=says):
        Subscriber(**{"name": "Ministry", "address": "m@example.net", **given})


def test_mail_without_a_server_or_a_password_in_the_clear_is_refused():
    with pytest.raises(ValueError, match=r"alerts\.smtp"):
        Alerts(sender="alerts@example.org")
    with pytest.raises(ValueError, match="this machine only"):
        Smtp(host="mail.example.org", security="none")
    with pytest.raises(ValueError, match="never sent without"):
        Smtp(host="localhost", security="none", user="lodemark")
    assert Smtp(host="127.0.0.1", port=2525, security="none").port == 2525
    assert Alerts().domain, "message ids need a domain though nobody sends"


def test_two_subscribers_of_one_name_and_unknown_minerals_or_indices_are_mistakes(tmp_path):
    assert "same name: ministry" in mistakes(tmp_path, GOOD.replace('"Duty"', '"MINISTRY"'))
    text = GOOD.replace('["gallium"]', '["galium"]').replace('zones = ["XCN"]', 'indices = ["critical"]')
    method = config.load_methodology(ROOT / "methodology")
    with pytest.raises(ConfigError) as caught:
        config.check_references(load(tmp_path, text), method)
    told = str(caught.value)
    assert "subscribers.0 (Ministry).minerals: galium" in told and "subscribers.0 (Ministry).indices: critical" in told


def test_quiet_hours_within_a_day_and_over_midnight():
    import datetime as dt

    noon = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)
    rest = QuietHours(start="11:00", end="13:00", zone="UTC")
    assert rest.ends(noon) == noon.replace(hour=13) and rest.ends(noon.replace(hour=13)) == noon.replace(hour=13)
    night = QuietHours(start="22:00", end="07:00", zone="UTC")
    assert night.ends(noon) == noon and night.ends(noon.replace(hour=23)) == dt.datetime(2026, 3, 3, 7, tzinfo=dt.UTC)
    assert night.ends(noon.replace(hour=6)) == noon.replace(hour=7)

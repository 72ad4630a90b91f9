"""What a fleet costs in AWS: work counted by tests, times prices that you replace with current ones. Pure.

`python3 -m cloud.costs` prints the tables of docs/costs.md. COUNTED is the work that one device causes, each time; a
test counts it again and fails if it differs. PRICES and Fleet are inputs: change them, and print the tables again.
"""
# ruff: noqa: T201 - a command line program prints

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KB: Final = 1024
GB: Final = 1024**3
MILLION: Final = 1_000_000
MONTH_DAYS: Final = 365 / 12
WHERE: Final = "US East (N. Virginia), USD, gathered in November 2026, without free tiers and discounts for volume"

REGISTRY: Final = frozenset({"AttachThingPrincipal", "ListPrincipalThings", "ListThingPrincipals", "CreateThing"})
"""Calls that the page of AWS IoT's metering details lists as registry operations; certificates and policies are not."""


@dataclass(frozen=True)
class Work:
    """What happens once for one device.

    `runs` of the Lambda, of which topic rules started `rules`; `calls` by name; DynamoDB's request units; what is added
    to the history and what the record then takes, in bytes; bytes of log; signatures; and between device and broker
    connections, subscriptions, and questions with an answer.
    """

    runs: int
    rules: int
    calls: dict[str, int]
    read_units: float
    write_units: int
    history_bytes: int
    record_bytes: int
    log_bytes: int
    signatures: int = 0
    connects: int = 0
    subscribes: int = 0
    exchanges: int = 0


COUNTED: Final = {
    "onboarding": Work(
        runs=3,
        rules=3,
        calls={
            "AttachPolicy": 2,
            "AttachThingPrincipal": 1,
            "DescribeCertificate": 3,
            "DetachPolicy": 1,
            "DetachThingPrincipal": 1,
            "GetItem": 9,
            "ListAttachedPolicies": 2,
            "ListPrincipalThings": 2,
            "Publish": 2,
            "RegisterCertificate": 1,
            "TransactWriteItems": 4,
            "UpdateCertificate": 1,
            "UpdateItem": 1,
        },
        read_units=9,
        write_units=31,
        history_bytes=739,
        record_bytes=1059,
        log_bytes=1426,
        signatures=1,
        connects=4,
        subscribes=3,
        exchanges=2,
    ),
    "renewal": Work(
        runs=2,
        rules=2,
        calls={
            "AttachPolicy": 2,
            "AttachThingPrincipal": 1,
            "DeleteCertificate": 1,
            "DescribeCertificate": 2,
            "DetachPolicy": 2,
            "DetachThingPrincipal": 1,
            "GetItem": 7,
            "ListAttachedPolicies": 1,
            "ListPrincipalThings": 1,
            "Publish": 2,
            "RegisterCertificate": 1,
            "TransactWriteItems": 3,
            "UpdateCertificate": 1,
            "UpdateItem": 1,
        },
        read_units=7,
        write_units=32,
        history_bytes=501,
        record_bytes=1342,
        log_bytes=1265,
        signatures=1,
        connects=2,
        subscribes=2,
        exchanges=2,
    ),
    "check-in": Work(
        runs=1,
        rules=1,
        calls={"GetItem": 2, "Publish": 1, "UpdateItem": 1},
        read_units=2,
        write_units=2,
        history_bytes=0,
        record_bytes=1342,
        log_bytes=303,
        connects=1,
        subscribes=1,
        exchanges=1,
    ),
    "idle sweep": Work(
        runs=1,
        rules=0,
        calls={"Query": 1},
        read_units=0.5,
        write_units=0,
        history_bytes=0,
        record_bytes=1059,
        log_bytes=219,
    ),
}


@dataclass(frozen=True)
class Price:
    """`usd` dollars for `per` of a unit."""

    usd: float
    per: int
    unit: str
    source: str

    @property
    def each(self) -> float:
        """Return the dollars for one unit."""
        return self.usd / self.per


IOT: Final = "aws.amazon.com/iot-core/pricing"
LAMBDA: Final = "aws.amazon.com/lambda/pricing"
DYNAMODB: Final = "aws.amazon.com/dynamodb/pricing/on-demand"
CLOUDWATCH: Final = "aws.amazon.com/cloudwatch/pricing"
KMS: Final = "aws.amazon.com/kms/pricing"

PRICES: Final[dict[str, Price]] = {
    "connectivity": Price(0.08, MILLION, "minutes of connection, each begun one", IOT),
    "messages": Price(1.00, MILLION, "messages of 5 KB", IOT),
    "rules": Price(0.15, MILLION, "rules triggered", IOT),
    "actions": Price(0.15, MILLION, "actions executed", IOT),
    "registry": Price(1.25, MILLION, "registry operations", IOT),
    "runs": Price(0.20, MILLION, "Lambda requests", LAMBDA),
    "compute": Price(13.3334, MILLION, "GB-seconds, arm64", LAMBDA),
    "writes": Price(0.625, MILLION, "write request units", DYNAMODB),
    "reads": Price(0.125, MILLION, "read request units", DYNAMODB),
    "table": Price(0.25, 1, "GB-month of tables", DYNAMODB),
    "recovery": Price(0.20, 1, "GB-month of point-in-time recovery", DYNAMODB),
    "log": Price(0.50, 1, "GB of log taken in", CLOUDWATCH),
    "log kept": Price(0.03, 1, "GB-month of log kept", CLOUDWATCH),
    "metrics": Price(0.30, 1, "custom metrics, a month", CLOUDWATCH),
    "alarms": Price(0.10, 1, "alarms, a month", CLOUDWATCH),
    "dashboard": Price(3.00, 1, "dashboards, a month", CLOUDWATCH),
    "schedule": Price(1.00, MILLION, "schedule invocations", "aws.amazon.com/eventbridge/pricing"),
    "key": Price(1.00, 1, "KMS keys, a month", KMS),
    "signatures": Price(0.15, 10_000, "KMS signatures, P-256", KMS),
}


@dataclass(frozen=True)
class Fleet:
    """A fleet, and values that only a running stack can show: both are assumptions."""

    devices: int = MILLION
    lifetime_days: float = 90
    renewed_at: float = 2 / 3 + 0.10 / 2  # of the lifetime: the agent's `renewal`, at the middle of its spread
    check_ins_a_day: float = 4 / 3  # `check_in: every: 1d` means half a day to a whole one
    memory_gb: float = 0.5
    run_ms: int = 20  # of a run, besides its calls
    call_ms: int = 15  # of one call
    detach_ms: int = 1500  # until a certificate that was just detached can be deleted
    run_log_bytes: int = 400  # Lambda's own lines: START, END, REPORT
    log_months: float = 3
    history_years: float = 1

    @property
    def rotations_a_month(self) -> float:
        """Return how often a device renews."""
        return MONTH_DAYS / (self.lifetime_days * self.renewed_at)


METRICS: Final = 12
ALARMS: Final = 18
SWEEPS_A_MONTH: Final = MONTH_DAYS * 24 * 12
ITEM_OVERHEAD: Final = 100  # bytes that DynamoDB adds to each item when it counts storage


def amounts(work: Work, fleet: Fleet) -> dict[str, float]:
    """Return how much of each price's unit is used when this happens once."""
    ms = work.runs * fleet.run_ms + sum(work.calls.values()) * fleet.call_ms
    ms += work.calls.get("DeleteCertificate", 0) * fleet.detach_ms
    # A device sends CONNECT, SUBSCRIBE, PUBLISH and PUBACK and is sent PUBLISH; the Lambda publishes over HTTP. What
    # AWS IoT publishes about a certificate that registers is counted as a message too.
    event = work.rules - work.exchanges
    messages = work.connects + work.subscribes + 3 * work.exchanges + work.calls.get("Publish", 0) + event
    return {
        "connectivity": work.connects,
        "messages": messages,
        "rules": work.rules,
        "actions": work.rules,
        "registry": sum(count for name, count in work.calls.items() if name in REGISTRY),
        "runs": work.runs,
        "compute": ms / 1000 * fleet.memory_gb,
        "writes": work.write_units,
        "reads": work.read_units,
        "log": (work.log_bytes + work.runs * fleet.run_log_bytes) / GB,
        "signatures": work.signatures,
    }


def a_month(fleet: Fleet) -> dict[str, float]:
    """Return how much of each price's unit the fleet uses in a month, after onboarding."""
    often = {
        "renewal": fleet.devices * fleet.rotations_a_month,
        "check-in": fleet.devices * fleet.check_ins_a_day * MONTH_DAYS,
        "idle sweep": SWEEPS_A_MONTH,
    }
    used = dict.fromkeys(PRICES, 0.0)
    for name, times in often.items():
        for unit, amount in amounts(COUNTED[name], fleet).items():
            used[unit] += amount * times
    renewals = fleet.rotations_a_month * 12 * fleet.history_years
    record = COUNTED["renewal"].record_bytes + ITEM_OVERHEAD
    history = COUNTED["renewal"].history_bytes * renewals + COUNTED["onboarding"].history_bytes
    used["table"] = used["recovery"] = fleet.devices * (record + history) / GB
    used["log kept"] = used["log"] * fleet.log_months
    used |= {"metrics": METRICS, "alarms": ALARMS, "dashboard": 1, "schedule": SWEEPS_A_MONTH, "key": 2}
    return used


def dollars(used: dict[str, float]) -> float:
    """Return the cost in dollars."""
    return sum(amount * PRICES[unit].each for unit, amount in used.items())


def counted_table() -> list[str]:
    """Return the table of COUNTED."""
    names = sorted({name for work in COUNTED.values() for name in work.calls})
    rows: list[tuple[str, list[float]]]
    rows = [(f"`{name}`", [work.calls.get(name, 0) for work in COUNTED.values()]) for name in names]
    rows += [
        ("Lambda runs", [work.runs for work in COUNTED.values()]),
        ("rules triggered", [work.rules for work in COUNTED.values()]),
        ("read units", [work.read_units for work in COUNTED.values()]),
        ("write units", [work.write_units for work in COUNTED.values()]),
        ("signatures", [work.signatures for work in COUNTED.values()]),
        ("bytes of log, without Lambda's own", [work.log_bytes for work in COUNTED.values()]),
        ("bytes of history", [work.history_bytes for work in COUNTED.values()]),
        ("connections of the device", [work.connects for work in COUNTED.values()]),
        ("subscriptions", [work.subscribes for work in COUNTED.values()]),
        ("questions with an answer", [work.exchanges for work in COUNTED.values()]),
    ]
    head = ["| counted, once for one device | " + " | ".join(COUNTED) + " |", "|---|" + "---:|" * len(COUNTED)]
    return head + ["| " + " | ".join([name, *(f"{one:g}" if one else "" for one in row)]) + " |" for name, row in rows]


def price_table() -> list[str]:
    """Return the table of prices."""
    head = ["| price | for | source |", "|---:|---|---|"]
    return head + [
        f"| ${price.usd:g} | {f'{price.per:,} ' if price.per > 1 else ''}{price.unit} | {price.source} |"
        for price in PRICES.values()
    ]


def cost_table(fleet: Fleet) -> list[str]:
    """Return what each thing costs for a million devices, and the fleet in a month, by unit."""
    flows = [name for name in COUNTED if name != "idle sweep"]
    each = [amounts(COUNTED[name], fleet) for name in flows]
    month = a_month(fleet)
    head = [
        f"| USD | {' | '.join(f'a million times: {name}' for name in flows)} | {fleet.devices:,} devices, a month |",
        "|---|" + "---:|" * (len(flows) + 1),
    ]
    rows = []
    for unit, price in PRICES.items():
        cells = [used.get(unit, 0) * price.each * MILLION for used in each] + [month[unit] * price.each]
        rows.append(f"| {price.unit} | " + " | ".join(_usd(cell) for cell in cells) + " |")
    totals = [dollars(used) * MILLION for used in each] + [dollars(month)]
    return [*head, *rows, "| **all** | " + " | ".join(f"**{_usd(total)}**" for total in totals) + " |"]


def _usd(amount: float) -> str:
    return f"{amount:,.2f}" if amount else ""


def tables(fleet: Fleet) -> str:
    """Return what docs/costs.md shows."""
    renews = f"{fleet.rotations_a_month:.2f} renewals and {fleet.check_ins_a_day * MONTH_DAYS:.1f} check-ins a month"
    said = f"{fleet.devices:,} devices, certificates of {fleet.lifetime_days:g} days: {renews} for each."
    parts = [
        counted_table(),
        [f"Inputs, to be replaced by today's: {WHERE}."],
        price_table(),
        [said],
        cost_table(fleet),
    ]
    return "\n\n".join("\n".join(part) for part in parts)


if __name__ == "__main__":
    print(tables(Fleet()))

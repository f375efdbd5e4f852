"""A thousand tokens in one request, compared with a thousand requests."""

import json
from functools import partial

from bench.alternation import alternate, failures_in, rate_ratio
from bench.answers import ask_once
from bench.environment import BenchEnvironment, http_request
from bench.load import run_round
from bench.rows.plan import Plan, RowNotMeasurableError
from bench.servers import BenchError
from bench.table import Bound, Figure, Sense

_SINGLE_CONNECTIONS = 32
_BATCH_CONNECTIONS = 2


def measure_batch(plan: Plan, environment: BenchEnvironment) -> list[Figure]:
    """Measure both alternately, from the cache, with the same users."""
    url = environment.new_database()
    users = environment.fill(url, plan.count(1000, 100))
    with environment.broker(url) as broker:
        body = json.dumps({"requests": [{"user_id": user_id} for user_id in users]}).encode()
        many = http_request("POST", "/v1/tokens", broker.port, environment.key, body)
        first = ask_once(broker.port, many)
        if first.status in (404, 405):
            raise RowNotMeasurableError("this broker does not serve POST /v1/tokens")
        if first.status != 200 or first.body.count(b'"access_token"') != len(users):
            raise BenchError("the broker does not answer a batch with a token per item")
        singles = [environment.request(broker, user) for user in users[:_SINGLE_CONNECTIONS]]
        for request in singles:
            ask_once(broker.port, request)
        measure = partial(
            run_round,
            broker.port,
            warm_up=0.2 if plan.quick else 1.0,
            seconds=plan.seconds(3.0),
            cpu_seconds=broker.cpu_seconds,
        )
        pairs = alternate(
            lambda: measure([many] * _BATCH_CONNECTIONS),
            lambda: measure(singles),
            plan.repetitions(5),
        )
    return [
        Figure(
            "batch",
            f"batch of {len(users):,} warm users, tokens a second ÷ single fetches a second",
            rate_ratio(pairs) * len(users),
            Bound(Sense.AT_LEAST, 10),
            {
                "tokens a second in batches": round(max(a.rate for a, _ in pairs) * len(users)),
                "single fetches a second": round(max(b.rate for _, b in pairs)),
            },
            failures=failures_in(pairs),
        )
    ]

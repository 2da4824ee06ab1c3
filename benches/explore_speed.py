"""python benches/explore_speed.py RUN    How long the pages of `explore` take for a large catalogue.

A run in memory with `--items` items and `--users` users: each has the vectors and the texts of one of RUN's,
drawn at random, and the collaborative table has 2,000 entries an item. The pages are served by uvicorn and
asked for over HTTP, one after another; an explanation at once, and again `--look` seconds after its list, in
which the server reads ahead. Milliseconds by the clock, median and 95 % of 40 requests.
"""

import argparse
import dataclasses
import gc
import http.client
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import uvicorn

from llmdirect.common.csr import Csr
from llmdirect.data.dataset import TRAIN, Passages
from llmdirect.explanation.explainer import Explainer
from llmdirect.explore.app import make_app
from llmdirect.ranking.scorer import ScoreTables

REQUESTS, NEIGHBOURS, HISTORY = 40, 2000, 10


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--items", type=int, default=25_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--look", type=float, default=3.0)
    asked = parser.parse_args()
    explainer = enlarged(Explainer.open(asked.run), asked.items, asked.users)
    drawn = np.random.default_rng(1)
    users = [f"u{n}" for n in drawn.integers(0, asked.users, REQUESTS)]
    items = [f"i{n}" for n in drawn.permutation(asked.items)[: 2 * REQUESTS]]
    print(f"{asked.items:,} items, {asked.users:,} users, {explainer.texts.dataset.num_passages:,} texts, ")
    print(f"{torch.get_num_threads()} threads\n\n| | median | 95 % |\n|---|---:|---:|")
    with served(explainer) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)

        def get(address: str) -> str:
            connection.request("GET", address)
            answer = connection.getresponse()
            page = answer.read().decode()
            assert answer.status == 200, (address, page[-400:])
            return page

        def timed(addresses: Iterable[str]) -> list[float]:
            seconds = []
            for address in addresses:
                started = time.perf_counter()
                get(address)
                seconds.append(time.perf_counter() - started)
            return seconds

        def best(user: str) -> str:
            found = re.search(r'data-item="([^"]+)"', get(f"/user?user={user}&part=1"))
            assert found
            return found[1]

        timed(["/", "/aspects", f"/user?user={users[0]}"])
        show("a person's list", timed(f"/user?user={user}" for user in users))
        show("a moved slider", timed(f"/user?user={user}&part=1&a3=2&a5=0.5" for user in users))
        pairs = [(user, best(user)) for user in users]
        opened = [f"/explain?user={user}&item={item}&part=1" for user, item in pairs]
        show("an explanation opened at once", timed(opened))
        looked = []
        for user in [f"u{n}" for n in drawn.integers(0, asked.users, REQUESTS)]:
            item = best(user)
            time.sleep(asked.look)
            looked += timed([f"/explain?user={user}&item={item}&part=1"])
        show(f"the same {asked.look:g} s after its list", looked)
        show("an item's page", timed(f"/item?id={item}" for item in items[:REQUESTS]))
        both = zip(items[:REQUESTS], items[REQUESTS:], strict=True)
        show("two items compared", timed(f"/compare?user={users[0]}&item={a}&item={b}" for a, b in both))
        show(
            "an aspect's page",
            timed(f"/aspect?n={n % explainer.texts.model.aspects}" for n in range(REQUESTS)),
        )
        show("a search", timed(f"/search?q=u{n}&part=all" for n in range(REQUESTS)))


def show(name: str, seconds: list[float]) -> None:
    """A row of the table."""
    low, high = np.quantile(seconds, [0.5, 0.95]) * 1e3
    print(f"| {name} | {low:.0f} ms | {high:.0f} ms |", flush=True)


@contextmanager
def served(explainer: Explainer) -> Iterator[int]:
    """The port at which the pages are served, as `llmdirect explore` does."""
    config = uvicorn.Config(make_app(explainer, _no_encoder), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    gc.collect()
    gc.freeze()
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def _no_encoder() -> object:
    raise AssertionError("no text is pasted here")


def enlarged(base: Explainer, num_items: int, num_users: int) -> Explainer:
    """The run with so many items and users."""
    drawn = np.random.default_rng(0)
    trained, dataset, tables = base.trained, base.dataset, base.trained.tables
    source = drawn.integers(0, tables.num_items, num_items)
    item, query = (
        table[rows]
        for table, rows in (
            (tables.item, source),
            (tables.query, drawn.integers(0, tables.num_users, num_users)),
        )
    )
    seen = Csr.from_pairs(
        np.repeat(np.arange(num_users), HISTORY), drawn.integers(0, num_items, num_users * HISTORY), num_users
    )
    first = drawn.integers(0, num_items - NEIGHBOURS, num_items)
    near = (first[:, None] + np.arange(NEIGHBOURS)).ravel().astype(np.int32)
    table = (
        np.arange(num_items + 1, dtype=np.int64) * NEIGHBOURS,
        near,
        drawn.standard_normal(len(near)).astype(np.float32),
    )
    passages = dataset.passages
    of_item = [
        np.flatnonzero((passages.item_idx == one) & (passages.split == TRAIN))
        for one in range(tables.num_items)
    ]
    rows = np.concatenate([of_item[one] for one in source])
    owner = np.repeat(np.arange(num_items, dtype=np.int32), [len(of_item[one]) for one in source])
    names = [f"u{n}" for n in range(num_users)]
    item_ids, titles = [f"i{n}" for n in range(num_items)], [None] * num_items
    return dataclasses.replace(
        base,
        trained=dataclasses.replace(
            trained,
            tables=ScoreTables(
                query=query,
                item=item,
                item_bias=np.log1p(drawn.integers(1, 200, num_items)).astype(np.float32),
                history=seen,
                item_item=table,
            ),
            **{"profile": torch.from_numpy(item), "query": torch.from_numpy(query)},
            **{"seen": seen, "recent": seen, "user_ids": names, "item_ids": item_ids, "titles": titles},
        ),
        dataset=dataclasses.replace(
            dataset,
            # Authors keep their names, after those of the users.
            user_ids=names + dataset.user_ids,
            item_ids=item_ids,
            item_titles=titles,
            passages=Passages(
                text=passages.text.gather(rows),
                kind=passages.kind[rows],
                user_idx=np.where(passages.user_idx[rows] < 0, -1, passages.user_idx[rows] + num_users),
                item_idx=owner,
                split=passages.split[rows],
            ),
            interactions=dataclasses.replace(
                dataset.interactions,
                passage_idx=np.arange(len(rows)),
                rating=np.full(len(rows), 4, np.float32),
            ),
        ),
    )


if __name__ == "__main__":
    main()

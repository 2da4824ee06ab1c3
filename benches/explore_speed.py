"""python benches/explore_speed.py RUN    Response times of `explore` with a large catalogue.

A run in memory with `--items` items and `--users` users: each has the vectors and the texts of one of RUN's,
drawn at random, and the item-item table has 2,000 entries an item. The pages are served by uvicorn and
requested over HTTP, one after another; an explanation immediately, and again `--look` seconds after its list,
in which the server prefetches. Milliseconds by the clock, median and 95th percentile of 40 requests.
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
    """Measure and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--items", type=int, default=25_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--look", type=float, default=3.0)
    args = parser.parse_args()
    explainer = enlarged(Explainer.open(args.run), args.items, args.users)
    rng = np.random.default_rng(1)
    users = [f"u{n}" for n in rng.integers(0, args.users, REQUESTS)]
    items = [f"i{n}" for n in rng.permutation(args.items)[: 2 * REQUESTS]]
    print(f"{args.items:,} items, {args.users:,} users, {explainer.texts.dataset.num_passages:,} texts, ")
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
            match = re.search(r'data-item="([^"]+)"', get(f"/user?user={user}&part=1"))
            assert match
            return match[1]

        timed(["/", "/aspects", f"/user?user={users[0]}"])
        show("a person's list", timed(f"/user?user={user}" for user in users))
        show("a moved slider", timed(f"/user?user={user}&part=1&a3=2&a5=0.5" for user in users))
        pairs = [(user, best(user)) for user in users]
        opened = [f"/explain?user={user}&item={item}&part=1" for user, item in pairs]
        show("an explanation opened at once", timed(opened))
        after_list = []
        for user in [f"u{n}" for n in rng.integers(0, args.users, REQUESTS)]:
            item = best(user)
            time.sleep(args.look)
            after_list += timed([f"/explain?user={user}&item={item}&part=1"])
        show(f"the same {args.look:g} s after its list", after_list)
        show("an item's page", timed(f"/item?id={item}" for item in items[:REQUESTS]))
        both = zip(items[:REQUESTS], items[REQUESTS:], strict=True)
        show("two items compared", timed(f"/compare?user={users[0]}&item={a}&item={b}" for a, b in both))
        show(
            "an aspect's page",
            timed(f"/aspect?n={n % explainer.texts.model.aspects}" for n in range(REQUESTS)),
        )
        show("a search", timed(f"/search?q=u{n}&part=all" for n in range(REQUESTS)))


def show(name: str, seconds: list[float]) -> None:
    """Print a row of the table."""
    median, high = np.quantile(seconds, [0.5, 0.95]) * 1e3
    print(f"| {name} | {median:.0f} ms | {high:.0f} ms |", flush=True)


@contextmanager
def served(explainer: Explainer) -> Iterator[int]:
    """Serve the pages as `llmdirect explore` does: the port."""
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
    raise AssertionError("no request encodes text")


def enlarged(base: Explainer, num_items: int, num_users: int) -> Explainer:
    """The run with more items and users, drawn from its own."""
    rng = np.random.default_rng(0)
    trained, dataset, tables = base.trained, base.dataset, base.trained.tables
    source = rng.integers(0, tables.num_items, num_items)
    item_vectors, query = (
        table[rows]
        for table, rows in (
            (tables.item, source),
            (tables.query, rng.integers(0, tables.num_users, num_users)),
        )
    )
    seen = Csr.from_pairs(
        np.repeat(np.arange(num_users), HISTORY), rng.integers(0, num_items, num_users * HISTORY), num_users
    )
    first = rng.integers(0, num_items - NEIGHBOURS, num_items)
    neighbours = (first[:, None] + np.arange(NEIGHBOURS)).ravel().astype(np.int32)
    table = (
        np.arange(num_items + 1, dtype=np.int64) * NEIGHBOURS,
        neighbours,
        rng.standard_normal(len(neighbours)).astype(np.float32),
    )
    passages = dataset.passages
    of_item = [
        np.flatnonzero((passages.item_idx == item) & (passages.split == TRAIN))
        for item in range(tables.num_items)
    ]
    rows = np.concatenate([of_item[item] for item in source])
    owner = np.repeat(np.arange(num_items, dtype=np.int32), [len(of_item[item]) for item in source])
    names = [f"u{n}" for n in range(num_users)]
    item_ids, titles = [f"i{n}" for n in range(num_items)], [None] * num_items
    return dataclasses.replace(
        base,
        trained=dataclasses.replace(
            trained,
            tables=ScoreTables(
                query=query,
                item=item_vectors,
                item_bias=np.log1p(rng.integers(1, 200, num_items)).astype(np.float32),
                history=seen,
                item_item=table,
            ),
            **{"profile": torch.from_numpy(item_vectors), "query": torch.from_numpy(query)},
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

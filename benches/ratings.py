"""python benches/ratings.py DATASET [RUN]    Mean squared error of the test split's ratings.

The mean rating, LensKit's biases and its matrix factorisation (alternating least squares), both tuned on
validation, and DIRECT: `llmdirect train DATASET --objective rating --out RUN`. Needs the extra `bench`.
"""

import json
import sys
from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
from lenskit.als import BiasedMFScorer
from lenskit.basic import BiasScorer
from lenskit.data import ItemList, from_interactions_df
from lenskit.pipeline import Component
from lenskit.training import TrainingOptions

from llmdirect.data.dataset import TEST, TRAIN, VALID, Dataset
from llmdirect.runs.trained import Trained

DAMPING, FACTORS, RIDGES, EPOCHS = (1, 2, 5, 10, 20, 50), (1, 2, 5, 10, 25), (0.1, 1.0, 3.0, 10.0, 30.0), 20


def main() -> None:
    """Tune and print a JSON line a model."""
    dataset = Dataset.open(sys.argv[1])
    rows = dataset.interactions
    rated = ~np.isnan(rows.rating)
    train = rated & (rows.split == TRAIN)
    frame = pd.DataFrame(
        {"user_id": rows.user_idx[train], "item_id": rows.item_idx[train], "rating": rows.rating[train]}
    )
    data = from_interactions_df(frame)
    mean = float(rows.rating[train].mean())
    best: dict[str, tuple[float, float, object]] = {}

    def compare(name: str, settings: object, predicted: Callable[[np.ndarray], np.ndarray]) -> None:
        """Keep the settings with the smallest error on validation."""
        errors = [
            float(np.square(predicted(mask) - rows.rating[mask]).mean())
            for mask in (rated & (rows.split == split) for split in (VALID, TEST))
        ]
        if name not in best or errors[0] < best[name][0]:
            best[name] = (errors[0], errors[1], settings)

    def scored(model: Component) -> Callable[[np.ndarray], np.ndarray]:
        model.train(data, TrainingOptions(rng=0))

        def predicted(mask: np.ndarray) -> np.ndarray:
            values = np.empty(mask.sum())
            users, items = rows.user_idx[mask], rows.item_idx[mask]
            for user in np.unique(users):
                own = users == user
                scores = model(query=int(user), items=ItemList(item_ids=items[own])).scores()
                values[own] = np.nan_to_num(scores, nan=mean)
            return values

        return predicted

    compare("mean", {}, lambda mask: np.full(mask.sum(), mean))
    for damping in DAMPING:
        compare("biases", {"damping": damping}, scored(BiasScorer(damping=damping)))
    for factors, ridge, damping in product(FACTORS, RIDGES, DAMPING[1::2]):
        settings = {"embedding_size": factors, "regularization": ridge, "damping": damping}
        compare("matrix factorisation", settings, scored(BiasedMFScorer(epochs=EPOCHS, **settings)))
    if len(sys.argv) > 2:
        tables = Trained.load(sys.argv[2]).tables
        compare("direct", {}, lambda mask: tables.score_pairs(rows.user_idx[mask], rows.item_idx[mask]))
    for name, (valid, test, settings) in best.items():
        print(
            json.dumps(
                {"model": name, "valid": round(valid, 4), "test": round(test, 4), "settings": settings}
            )
        )


if __name__ == "__main__":
    main()

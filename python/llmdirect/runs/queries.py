"""Score tables of a finished run for queries that know more than the train split."""

import numpy as np
import torch

from llmdirect.config import HISTORY
from llmdirect.evaluation.queries import Queries
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.runs.trained import Trained


def tables_for(trained: Trained, queries: Queries) -> ScoreTables:
    """Score tables of the queries' users: their interests are read from the queries' histories.

    Items, popularity and item-item weights stay as the run has them. Where the protocol gives no more than
    the train split, and for models that read the texts of a user, the run's own users are taken.

    Returns
    -------
    Tables of B users, in the order of the queries.
    """
    own, users = trained.tables, queries.users
    bias = None if own.user_bias is None else own.user_bias[users]
    if queries.protocol == "random" or trained.model.config.user != "history":
        history = None if own.history is None else own.history.rows(users)
        return own.for_users(own.query[users], history, bias)
    query = scaled(trained, _read_histories(trained, queries))
    return own.for_users(query, queries.history_rows() if own.history is not None else None, bias)


def scaled(trained: Trained, query: torch.Tensor) -> torch.Tensor:
    """Queries [B, K] times the factors of aspects that are switched or weighed for everybody."""
    factors = torch.from_numpy(trained.edits.factors(trained.model.aspects)).float()
    return query * factors.repeat_interleave(query.shape[1] // len(factors))


def _read_histories(trained: Trained, queries: Queries) -> torch.Tensor:
    """Exported queries float32 [B, K] of the newest items of the histories."""
    model, parts = trained.model, []
    newest_first = queries.ages < HISTORY
    rows = np.repeat(np.arange(len(queries)), np.diff(queries.indptr))[newest_first]
    positions, items = queries.ages[newest_first], queries.items[newest_first]
    for start in range(0, len(queries), 1024):
        stop = min(start + 1024, len(queries))
        chosen = slice(*np.searchsorted(rows, [start, stop]))
        table = torch.zeros(stop - start, HISTORY, dtype=torch.long)
        mask = torch.zeros(stop - start, HISTORY, dtype=torch.bool)
        place = torch.from_numpy(rows[chosen] - start), torch.from_numpy(positions[chosen])
        table[place] = torch.from_numpy(items[chosen]).long()
        mask[place] = True
        with torch.no_grad():
            user = model.user((trained.profile[table], mask), None)
            parts.append(model.form.export_query(model.interests(user), model.temperature()))
    return torch.cat(parts)

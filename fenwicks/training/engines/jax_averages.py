"""The averages of the weights in a step of the JAX engine."""

from __future__ import annotations

import functools

from jax import lax


def averages_update(model, averages):
    """A function from the state of a training and the number of its last step to the next state.

    Args:
        model: a Keras model.
        averages: its `Averages`, with a rule or without one.
    """
    if averages.rule is None:
        return lambda state, step: state
    return functools.partial(_update, model, averages)


def _update(model, averages, state, step):
    """The state of a training with its averages updated after every `every`-th step.

    Args:
        model: a Keras model.
        averages: its `Averages`.
        state: a tuple of lists of values: of the model's trainable variables, of its others, of the
            optimizer's variables, of the averages.
        step: number of the step that made it, counted from 0 over the whole training.
    """
    trainable, fixed, slots, kept = state
    rule = averages.rule
    variables = model.trainable_variables + model.non_trainable_variables
    place = {id(variable): n for n, variable in enumerate(variables)}
    places = [place[id(source)] for source in averages.sources]
    values = [*trainable, *fixed]

    def update(averages, sources):
        averages, changed = rule.update(averages, sources, step)
        return averages, changed if rule.replaces_values else None

    def keep(averages, sources):
        return averages, sources if rule.replaces_values else None

    sources = [values[n] for n in places]
    kept, changed = lax.cond((step + 1) % rule.every == 0, update, keep, kept, sources)
    for n, value in zip(places, changed or sources, strict=True):
        values[n] = value
    count = len(trainable)
    return values[:count], values[count:], slots, kept

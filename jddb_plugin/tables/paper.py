"""The figures of the paper's tables 1 to 4 (Guo et al., CVPR 2022): PSNR in dB and SSIM, as printed there."""
from __future__ import annotations

from typing import Optional

#: PSNR, SSIM.
Score = tuple[float, Optional[float]]

_COLUMNS = ('kpn_dmn', 'edvr_dmn', 'rvidenet_dmn', 'edvr', 'rvidenet', 'gcp_net', 'two_stage')


def _rows(text: str, columns: tuple[str, ...]) -> dict[str, dict[str, Score]]:
    """Lines of 'name psnr/ssim psnr/ssim ...' -> {column: {name: score}}."""
    result: dict[str, dict[str, Score]] = {column: {} for column in columns}
    for line in text.strip().splitlines():
        name, *cells = line.split()
        for column, cell in zip(columns, cells):
            psnr, ssim = cell.split('/')
            result[column][name] = (float(psnr), float(ssim))
    return result


#: Table 1, REDS4: noise level -> system -> clip, or 'average'.
TABLE1 = {
    'low': _rows('''
        000     29.85/0.8398 32.15/0.8984 32.38/0.9075 32.44/0.9072 33.58/0.9285 34.96/0.9412 35.07/0.9501
        011     32.01/0.8496 34.29/0.9030 34.39/0.9019 34.32/0.9017 34.63/0.9044 36.21/0.9288 36.79/0.9356
        015     33.46/0.8770 35.42/0.9074 35.75/0.9169 35.54/0.9160 36.98/0.9327 37.74/0.9403 38.13/0.9456
        020     31.29/0.8613 33.56/0.9071 33.81/0.9165 33.86/0.9179 34.23/0.9230 35.92/0.9428 36.38/0.9479
        average 31.65/0.8570 33.85/0.9039 34.08/0.9107 34.02/0.9105 34.86/0.9221 36.20/0.9383 36.59/0.9448
    ''', _COLUMNS),
    'high': _rows('''
        000     27.47/0.7437 30.18/0.8517 30.37/0.8532 30.31/0.8539 31.29/0.8803 32.57/0.9147 32.75/0.9174
        011     29.64/0.7886 32.26/0.8611 32.50/0.8639 32.51/0.8643 32.50/0.8710 34.20/0.8972 34.74/0.9059
        015     31.21/0.8310 34.01/0.8893 34.10/0.8909 34.01/0.8919 34.90/0.9068 35.94/0.9225 36.06/0.9247
        020     28.66/0.7938 31.65/0.8780 31.74/0.8807 31.44/0.8757 31.82/0.8822 33.61/0.9154 34.17/0.9233
        average 29.24/0.7893 32.02/0.8700 32.18/0.8722 32.06/0.8715 32.62/0.8850 34.08/0.9124 34.43/0.9178
    ''', _COLUMNS),
}

_CLIPS = (*(f'{k:02d}' for k in range(12)), 'average')


def _lines(psnr: str, ssim: str) -> dict[str, Score]:
    """A line of PSNR and one of SSIM, clip by clip; where the copy of the paper at hand has no SSIM, it is None."""
    ssims: list[Optional[float]] = [float(value) for value in ssim.split()]
    ssims = ssims or [None] * len(_CLIPS)
    return {clip: (float(value), other) for clip, value, other in zip(_CLIPS, psnr.split(), ssims)}


#: Table 2, Videezy4K at high noise: system -> clip, or 'average'.
TABLE2 = {
    'edvr': _lines('36.07 38.45 40.07 40.84 37.82 33.93 36.96 35.71 37.02 34.86 37.60 36.99 37.19',
                   '0.9406 0.9583 0.9652 0.9721 0.9511 0.9207 0.9454 0.9310 0.9419 0.9299 0.9387 0.9367 0.9443'),
    'rvidenet': _lines('36.22 38.56 40.78 40.42 38.34 34.30 37.76 36.40 37.23 34.83 38.04 37.16 37.50',
                       '0.9490 0.9657 0.9738 0.9789 0.9582 0.9271 0.9543 0.9399 0.9448 0.9385 0.9432 0.9396 0.9510'),
    'gcp_net': _lines('35.51 39.17 41.32 40.85 38.74 34.83 38.50 37.12 37.69 35.67 38.21 37.78 37.94',
                      '0.9306 0.9683 0.9755 0.9646 0.9653 0.9365 0.9650 0.9530 0.9482 0.9458 0.9473 0.9424 0.9535'),
    'two_stage': _lines('37.75 39.61 41.71 42.42 39.30 36.09 39.24 37.21 38.76 35.94 38.64 38.27 38.74', ''),
}

#: Table 3, five UHD frames on a GTX 2080 Ti: system -> parameters in millions, seconds.
TABLE3 = {'edvr': (6.28, 10.4), 'rvidenet': (57.98, 124.3), 'gcp_net': (13.79, 19.5), 'two_stage': (12.05, 19.7)}
#: Of those of 'two_stage': coarse alignment, and refined alignment with the fusion.
TABLE3_SPLIT = (3.6, 16.1)

#: Table 4, REDS4 at high noise: variant -> clip, or 'average'.
TABLE4 = _rows('''
    000     30.74/0.8662 31.05/0.8738 32.57/0.9190 32.67/0.9158 32.75/0.9174
    020     32.43/0.8969 33.21/0.9080 32.69/0.9002 34.07/0.9217 34.17/0.9233
    average 32.88/0.8889 33.15/0.8932 33.90/0.9077 34.31/0.9159 34.43/0.9178
''', ('wo_align', 'w_ca', 'w_ra', 'wo_e2e', 'two_stage'))

"""Any cell on real data in seconds: handwritten digits, read row by row from the top.

The 1,797 images of 8 × 8 come with scikit-learn; a row of pixels is a frame, so T = 8 and D = 8. Run it::

    python examples/digits.py                 # every cell
    python examples/digits.py lstm min_gru
"""

import sys
import time

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import recurra
from recurra.cells import CELLS


class DigitReader(nn.Module):
    """What is left after the last row of pixels decides."""

    def __init__(self, cell, hidden_size=32):
        super().__init__()
        self.recurrent = recurra.Recurrent(cell, 8, hidden_size)
        self.head = nn.Linear(self.recurrent.output_size, 10)

    def forward(self, images):
        """``(B, 8, 8)`` to scores ``(B, 10)``."""
        y, _ = self.recurrent(images)
        return self.head(y[:, -1])


def learn(cell, epochs=10, seed=0):
    """Train on three quarters of the images; the accuracy on the others."""
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(images).float().view(-1, 8, 8) / 16
    train, test = train_test_split(torch.arange(len(labels)), stratify=labels, random_state=0)
    labels = torch.from_numpy(labels)
    network = DigitReader(cell)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(epochs):
        for rows in train[torch.randperm(len(train))].split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
    network.eval()
    with torch.no_grad():
        return (network(images[test]).argmax(1) == labels[test]).float().mean().item()


if __name__ == "__main__":
    for name in sys.argv[1:] or CELLS:
        began = time.perf_counter()
        print(f"{name:16} {learn(name):6.1%} of unseen digits    {time.perf_counter() - began:4.1f} s", flush=True)

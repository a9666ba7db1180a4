"""The textbook's recurrent network in NumPy, whole: forward, backward through time, and a step of gradient descent.

``docs/article.md`` says what was wrong with the textbook's own class; ``tests/test_article.py`` shows that this one and
:class:`recurra.RNNCell` give the same numbers. Run it to see it learn: ``python examples/article_rnn.py``.
"""

import math

import numpy as np


class ArticleRNN:
    """h_t = tanh(W1 x_t + U h_{t-1} + b1),  y_t = W2 h_t + b2.

    Letters: T frames, B sequences, D inputs, H units, K outputs.
    """

    def __init__(self, D, H, K, seed=0):
        random = np.random.default_rng(seed)
        self.W1 = random.normal(0, math.sqrt(1 / D), (H, D))  # the sum of D products keeps the variance of an input
        self.U = np.linalg.qr(random.normal(size=(H, H)))[0]  # orthogonal: neither grows nor shrinks what it turns
        self.b1 = np.zeros(H)
        self.W2 = random.normal(0, math.sqrt(1 / H), (K, H))
        self.b2 = np.zeros(K)

    def forward(self, x, h=None):
        """From x (T, B, D), and h (B, H) if it does not start from zero, to y (T, B, K) and the last h (B, H)."""
        T, B, _ = x.shape
        states = np.zeros((T + 1, B, len(self.U)))  # states[t] is the state before frame t
        if h is not None:
            states[0] = h
        for t in range(T):
            states[t + 1] = np.tanh(x[t] @ self.W1.T + states[t] @ self.U.T + self.b1)
        self.seen = x, states
        return states[1:] @ self.W2.T + self.b2, states[-1]

    def backward(self, dy):
        """From the loss's gradient in y (T, B, K) to that in each weight, through all frames."""
        x, states = self.seen
        grads = {"W2": np.einsum("tbk,tbh->kh", dy, states[1:]), "b2": dy.sum((0, 1))}
        da = np.empty_like(states[1:])  # in what tanh is taken of
        dh = np.zeros_like(states[0])  # what later frames ask of h_t
        for t in reversed(range(len(x))):
            da[t] = (dy[t] @ self.W2 + dh) * (1 - states[t + 1] ** 2)
            dh = da[t] @ self.U
        grads["W1"] = np.einsum("tbh,tbd->hd", da, x)
        grads["U"] = np.einsum("tbh,tbg->hg", da, states[:-1])
        grads["b1"] = da.sum((0, 1))
        return grads

    def descend(self, grads, rate):
        """One step of plain gradient descent."""
        for name, grad in grads.items():
            setattr(self, name, getattr(self, name) - rate * grad)


def mean_squared_error(y, target):
    """The loss, and its gradient in y; target has y's shape (T, B, K)."""
    error = y - target
    return np.mean(error**2), 2 * error / error.size


def cross_entropy(y, target):
    """The loss of scores y (T, B, K) against classes target (T, B), and its gradient in y."""
    shifted = y - y.max(-1, keepdims=True)  # so that exp cannot overflow
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    right = np.eye(y.shape[-1])[target]
    return -(right * log_p).sum(-1).mean(), (np.exp(log_p) - right) / target.size


def main():
    """Learn to say the input of three frames ago, which cannot be done without a memory."""
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, (30, 64, 1))
    target = np.concatenate([np.zeros((3, 64, 1)), x[:-3]])
    net = ArticleRNN(D=1, H=32, K=1)
    for step in range(401):
        y, _ = net.forward(x)
        loss, dy = mean_squared_error(y, target)
        if step % 100 == 0:
            print(f"step {step:4}  mean squared error {loss:.4f}")
        net.descend(net.backward(dy), rate=0.3)


if __name__ == "__main__":
    main()

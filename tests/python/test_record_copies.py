"""Copies and pickles of a model that is being recorded: they record nothing, and keep no part of the recording."""

from __future__ import annotations

import copy
import io
import pickle
import unittest

import torch
from torch import nn

from qmill.recording import record
from record_support import RecordCase


class Copies(RecordCase):
    def setUp(self) -> None:
        super().setUp()
        self.model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    def test_calls_of_a_copy_are_not_recorded(self) -> None:
        x = torch.randn(5, 4)
        with torch.no_grad(), record(self.model, self.path) as recording:
            expected = self.model(x)
            for other in (copy.deepcopy(self.model), copy.copy(self.model[0])):
                other(torch.randn(50, 4))
            self.assertTrue(torch.equal(copy.deepcopy(self.model)(x), expected))
        self.assertEqual(recording.account.rows_seen, {"0": 5, "1": 5})

    def test_a_copy_does_not_hold_the_recording(self) -> None:
        recording = record(self.model, self.path)
        recording.start()
        other = copy.deepcopy(self.model)
        recording.pause()
        for hook in other[0]._forward_pre_hooks.values():
            self.assertEqual(set(vars(hook).values()), {None})
        self.assertFalse(self.model[0]._forward_pre_hooks)

    def test_a_model_can_be_saved_while_it_is_recorded(self) -> None:
        x = torch.randn(5, 4)
        saved = io.BytesIO()
        with torch.no_grad(), record(self.model, self.path) as recording:
            expected = self.model(x)
            torch.save(self.model, saved)
            saved.seek(0)
            for other in (torch.load(saved, weights_only=False), pickle.loads(pickle.dumps(self.model))):
                self.assertTrue(torch.equal(other(x), expected))
        self.assertEqual(recording.account.rows_seen, {"0": 5, "1": 5})


if __name__ == "__main__":
    unittest.main()

"""An open model: iteration, copies, pickles, and what it says when it is closed."""

import copy
import multiprocessing
import os
import pickle
import unittest

import torch
from safetensors.torch import load_file

import qmill
from support import FolderTest, inside


def _sum_of(model):
    return float(model.tensor("blocks.0.proj.weight").double().sum())


class OpenModel(FolderTest):
    def setUp(self):
        super().setUp()
        self.path = self.model()
        self.tensors = load_file(self.path)

    def test_iterates_over_names(self):
        with qmill.open_model(self.path) as model:
            self.assertEqual(list(model), model.keys())
            self.assertEqual(set(model), set(self.tensors))
            self.assertIn("blocks.0.proj.weight", model)

    def test_copies_and_pickles_open_the_file_again(self):
        with inside(self.folder):
            model = qmill.open_model(self.path.name)  # a path below the current folder, which changes
        key = "blocks.0.proj.weight"
        others = [pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)]
        self.assertEqual(len({each._handle for each in (model, *others)}), 4)
        model.close()
        for other in others:
            self.assertTrue(torch.equal(other.tensor(key), self.tensors[key]))
            other.close()

    def test_another_process_gets_the_tensors_of_the_same_file(self):
        other = self.model("other.safetensors", seed=2)
        with qmill.open_model(other), qmill.open_model(self.path) as model:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(_sum_of, (model,))
        self.assertEqual(found, float(self.tensors["blocks.0.proj.weight"].double().sum()))

    def test_a_file_that_is_gone_is_named(self):
        with qmill.open_model(self.path) as model:
            pickled = pickle.dumps(model)
        os.unlink(self.path)
        with self.assertRaisesRegex(qmill.QmillError, "model.safetensors"):
            pickle.loads(pickled)

    def test_a_closed_model_says_so(self):
        model = qmill.open_model(self.path)
        self.assertEqual(repr(model), f"<qmill.Model '{self.path}': 6 tensors>")
        model.close()
        self.assertEqual(repr(model), f"<qmill.Model '{self.path}': closed>")
        for use in (model.keys, lambda: len(model), lambda: list(model), lambda: "a" in model,
                    lambda: model.shape("a"), lambda: pickle.dumps(model)):  # fmt: skip
            with self.assertRaisesRegex(qmill.UsageError, "is closed; open it again"):
                use()


if __name__ == "__main__":
    unittest.main()

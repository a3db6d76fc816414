"""The Python code of the pages runs, in the order of its page, in a folder with the files that it names."""

import contextlib
import io
import re
import unittest


from support import SOURCE, FolderTest, inside

PAGES = ["README.md", "docs/python.md"]


def code_blocks(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


class Pages(FolderTest):
    def test_code_runs(self):
        for page in PAGES:
            blocks = code_blocks((SOURCE / page).read_text(encoding="utf-8"))
            self.assertTrue(blocks, page)
            with self.subTest(page=page):
                self.prepare(page)
                names = {}
                for block in blocks:
                    with contextlib.redirect_stdout(io.StringIO()), inside(self.folder):
                        exec(compile(block, page, "exec"), names)

    def prepare(self, page):
        for file in self.folder.iterdir():
            file.unlink()
        model = self.model()
        self.recorded_rows(model)

    def test_the_reader_of_pages(self):
        self.assertEqual(code_blocks("a\n```python\nx = 1\n```\n```\nno\n```\n```python\ny\n```\n"), ["x = 1\n", "y\n"])


if __name__ == "__main__":
    unittest.main()

"""The original module's documentation, sentence by sentence, tried with each of our two hosts.

``row`` says what a row of the table is: section, number of the sentence, its gist in our words, a case, the result.
``section13`` to ``section18`` are the rows with their cases; the number of sentences of each section stands beside
them. ``house`` is one host in the few configurations that the cases need; ``lines``, ``phone`` and ``call`` are what a
user has. The tests are in tests/e2e/test_documentation.py.
"""

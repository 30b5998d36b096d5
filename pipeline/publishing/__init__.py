"""Publishing: the texts that go with a published dataset, and what must not be published with it."""

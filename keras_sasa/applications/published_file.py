"""A published file of weights, and its download."""

import dataclasses

import keras


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file in a repository of the Hugging Face hub.

    Attributes:
        repository: Owner and name.
        revision: The commit, so that the file stays the same.
        name: Name of the file.
        sha256: Its SHA-256, or `None` where it is not known.
    """

    repository: str
    revision: str
    name: str
    sha256: str | None = None

    @property
    def url(self) -> str:
        return (
            f"https://huggingface.co/{self.repository}/resolve/"
            f"{self.revision}/{self.name}"
        )

    def download(self) -> str:
        """Returns the path of the file in Keras' cache; downloads it once.

        Raises:
            ConnectionError: If it cannot be downloaded, or is not the file that
                was published.
        """
        repository = self.repository.replace("/", "_")
        try:
            return keras.utils.get_file(
                f"{repository}_{self.revision[:7]}_{self.name}",
                self.url,
                cache_subdir="models/keras_sasa",
                file_hash=self.sha256,
                hash_algorithm="sha256",
            )
        except Exception as error:
            # Keras raises a plain `Exception` without a network.
            raise ConnectionError(
                f'`weights="imagenet"` needs the file {self.url}, which cannot '
                f"be downloaded: {error} With a network elsewhere, download it "
                "there and pass its path as `weights`; `weights=None` builds "
                "the network without pretrained weights."
            ) from error

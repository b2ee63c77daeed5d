"""A small Hugging Face Hub on this machine, for what the Hub's own clients do with model repositories.

    with HubServer({"secret": User("ann")}) as hub:
        api = HfApi(endpoint=hub.url, token="secret")
        api.create_repo("ann/model")
        hub.faults = [Fault("POST .*/commit/", Status(500))]  # of the first commit that is asked for
        api.upload_folder(repo_id="ann/model", folder_path=folder)
        assert hub.repositories["ann/model"].files.keys() == {"config.json", ...}
        subprocess.run(command, env=hub.environment(home))  # from_pretrained("ann/model") reads from here
        assert hub.sent["ann/model/config.json"] == 120  # bytes

It knows: who I am, creating a repository, whether I may write, the check of a card's metadata, uploading (small files
in the commit itself; large ones to a storage of another address, in the Xet protocol, which clients use by default,
or as LFS objects), branches and tags, a repository's description and tree, downloading at a branch, a tag or a commit
(small files from here, large ones from the storage, by HTTP with ranges), private and gated repositories. Answers have
the statuses and headers of the real Hub, by which its clients choose what they raise.

Unlike the real one it names no Xet hash when a file is asked for, so that every client downloads by HTTP.
"""

from .faults import Damage, Fault, Status
from .repositories import Commit, Repository, User, read_folder
from .server import HubServer

__all__ = ["Commit", "Damage", "Fault", "HubServer", "Repository", "Status", "User", "read_folder"]

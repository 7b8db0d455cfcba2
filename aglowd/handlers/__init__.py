"""Handlers: one kind of pipeline step each, pure. They name effects and subjects; they touch nothing."""

from __future__ import annotations

from aglowd.handlers.await_approval import AwaitApproval
from aglowd.handlers.build_sandbox import BuildSandboxStep
from aglowd.handlers.cancel_jobs import CancelJobsStep
from aglowd.handlers.check_files import CheckFiles, CountFiles
from aglowd.handlers.check_staged import CheckStaged
from aglowd.handlers.copy import CopyFiles
from aglowd.handlers.copy_tree import CopyTree
from aglowd.handlers.delete_files import DeleteFiles
from aglowd.handlers.files_to_surls import FilesToSurls
from aglowd.handlers.general import Command, Http
from aglowd.handlers.make_directory import MakeDirectoryStep
from aglowd.handlers.modify_tokens import ModifyTokensStep
from aglowd.handlers.parset import Parset
from aglowd.handlers.provenance import Provenance
from aglowd.handlers.release import Release
from aglowd.handlers.results import CheckResults, Collect
from aglowd.handlers.run import Run
from aglowd.handlers.srm_list import SrmList
from aglowd.handlers.stage import Stage
from aglowd.handlers.status import ReleaseFieldStep, SetStatus
from aglowd.handlers.submit import Submit
from aglowd.handlers.tokens import ArchiveTokensStep, AttachFilesStep, CreateTokensStep
from aglowd.handlers.tokens_to_surls import TokensToSurls
from aglowd.handlers.versions import GitHead, ImageDigest
from aglowd.handlers.wait_files import WaitFiles
from aglowd.handlers.wait_tokens import WaitTokens
from aglowd.model import Handler

HANDLERS: tuple[type[Handler], ...] = (
    SetStatus,
    ReleaseFieldStep,
    SrmList,
    Stage,
    Release,
    CheckStaged,
    Parset,
    BuildSandboxStep,
    CreateTokensStep,
    AttachFilesStep,
    Submit,
    WaitTokens,
    CancelJobsStep,
    ModifyTokensStep,
    Collect,
    CheckResults,
    TokensToSurls,
    CheckFiles,
    CountFiles,
    WaitFiles,
    FilesToSurls,
    MakeDirectoryStep,
    CopyFiles,
    CopyTree,
    DeleteFiles,
    ArchiveTokensStep,
    Provenance,
    AwaitApproval,
    Run,
    Command,
    Http,
    GitHead,
    ImageDigest,
)
"""Every kind of step. A new one is a new file and one line here."""

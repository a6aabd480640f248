"""The likely mistakes of somebody who uses a shipped config: each ends in one message that says what to change."""

from pathlib import Path

import pytest

from schemas import atlas, jetclass, jetnet, pfnano, quark_gluon, top_tagging

CONFIGS = Path(__file__).parents[1] / "configs"
PARTICLES_PATH = "data/JetClass/Pythia/train_100M/HToBB_*.root"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small files of several sets, where the configs look for them; not to be changed."""
    folder = tmp_path_factory.mktemp("files")
    jetclass.write(folder, 4)
    jetnet.write(folder, 20)
    quark_gluon.write(folder, 3)
    top_tagging.write(folder, 5)
    pfnano.write_ak8(folder, 6)
    atlas.write(folder, 40)
    table = top_tagging.frame(5, 1, 1).drop(columns="is_signal_new")
    table.to_hdf(folder / "unlabelled.h5", key="table", format="table")
    return folder


def edited(*changes):
    def edit(text):
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        return text

    return edit


MISTAKES = {
    "files in another folder": (
        "jetclass_full",
        edited(("Pythia/train_100M/HToBB_", "train_100M/HToBB_")),
        ["data.train.HToBB: no file matches", "there is no folder data/JetClass/train_100M"],
    ),
    "another suffix": (
        "jetclass_full",
        edited(("train_100M/HToBB_*.root", "train_100M/HToBB_*.rot")),
        ["data.train.HToBB: no file matches", "did you mean", "HToBB_000.root"],
    ),
    "a file of another set": (
        "jetclass_full",
        edited((PARTICLES_PATH, "data/top_tagging/train.h5")),
        ["data/top_tagging/train.h5", "unknown branch or definition 'label_"],
    ),
    "a class left out": (
        "jetclass_kin",
        edited(("  - label_Tbl\n", "")),
        ["TTBarLep_000.root", "4 of 4 selected jets do not belong to exactly one class", "in no class"],
    ),
    "a class that is no flag": (
        "jetclass_kin",
        edited(("  - label_Tbl\n", "  - aux_truth_match\n")),
        ["classes.aux_truth_match: one_hot takes a branch of 0 and 1; 'aux_truth_match' is 41"],
    ),
    "the wrong unit": (
        "jetclass_full",
        edited(("\nclasses:", "\n  units: MeV\n  selection: jet_pt > 500\nclasses:")),
        ["data.selection 'jet_pt > 500' leaves none of 40 jets"],
    ),
    "the wrong key": (
        "top_tagging",
        edited(("tree: table", "tree: Table")),
        [".h5: unknown table 'Table': did you mean 'table'?"],
    ),
    "no label in the test data": (
        "top_tagging",
        edited(("data/top_tagging/test.h5", "unlabelled.h5")),
        ["unlabelled.h5: classes.", "'is_signal_new'"],
    ),
    "training on the test data": (
        "top_tagging",
        edited(("data/top_tagging/test.h5", "data/top_tagging/train.h5")),
        ["train.h5 (data.test) is the same file as data/top_tagging/train.h5 (data.train)"],
    ),
    "padding taken for particles": (
        "top_tagging",
        edited(('  slots: {"[EP]*": E > 0}', "  slots: {}")),
        ["inputs.particles.coordinates.eta", "values are not finite", "data.slots"],
    ),
    "too few names of columns": (
        "quark_gluon",
        edited(("{X: [pt, y, phi, pid]}", "{X: [pt, y, phi]}")),
        [".npz: data.columns.X: 3 names (pt, y, phi)", "length 4"],
    ),
    "names of columns of no array": (
        "quark_gluon",
        edited(("{X: [pt, y, phi, pid]}", "{x: [pt, y, phi, pid]}")),
        [".npz: data.columns: unknown array 'x': did you mean 'X'?"],
    ),
    "slots of no branch": (
        "jetnet",
        edited(('"particle_features.*"', '"particle_featurs.*"')),
        [".hdf5: data.slots: no branch matches 'particle_featurs.*'", "did you mean 'particle_features."],
    ),
    "a class of no sample": (
        "jetnet",
        edited(("W: {sample: W}", "W: {sample: w}")),
        ["classes.W.sample: sample 'w' is not in data.train: did you mean 'W'?"],
    ),
    "too few jets to split": (
        "jetnet",
        edited(),
        ["no jet on the ", "side of the split (data.validation: 0.15, 5 groups of jets"],
    ),
    "events taken for jets": (
        "cms_pfnano_ak8",
        edited(("  jets: FatJet_*\n", "")),
        ["inputs.particles.index: links particles to the jets of an event", "data.jets: FatJet_*"],
    ),
    "a glob that takes the table for jets": (
        "cms_pfnano_ak8",
        edited(("jets: FatJet_*", "jets: FatJet*")),
        ["_0.root: event ", "and data.jets matches both"],
    ),
    "a link of another producer": (
        "cms_pfnano_ak8",
        edited(("particle: FatJetPFCands_pFCandsIdx", "particle: FatJetPFCands_candIdx")),
        ["_0.root: inputs.particles.index.particle: unknown branch 'FatJetPFCands_candIdx'"],
    ),
    "files without the inputs of DeepJet": (
        "cms_pfnano_ak4",
        edited(("ttbar_", "Hbb_")),
        ["data/pfnano/Hbb_", "unknown branch or definition 'Jet_"],
    ),
    "a field that the files lack": (
        "atlas_hdf5",
        edited(("numberOfSCTHoles: tracks.numberOfSCTHoles", "numberOfSCTHoles: tracks.numberOfSctHoles")),
        ["_0.h5: inputs.tracks.features.numberOfSCTHoles", "did you mean 'tracks.numberOfSCTHoles'?"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_message_says_what_to_change(mistake, files, command, tmp_path, monkeypatch):
    name, edit, words = MISTAKES[mistake]
    monkeypatch.chdir(files)
    config = tmp_path / f"{name}.yaml"
    config.write_text(edit((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")), encoding="utf-8")
    outcome = command("prepare", config, "--set", f"data.prepared={tmp_path / 'prepared'}")
    assert outcome.status == 2
    assert "Traceback" not in outcome.out + outcome.error
    for word in words:
        assert word in outcome.error

"""What tables and comparisons run: recipes with their options, each in a folder of its name."""

import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras_xreid as xr
from keras_xreid import hub
from keras_xreid.app import later, provenance, recipes, settings
from keras_xreid.report.runs import read_metrics

keras = later("keras")

# Training images a second of one core: EfficientNet-Lite0 at 128x64 in float32 on PyTorch. Of a
# recipe that is not here a plan expects the least.
SPEEDS = {"baseline": 52, "rain": 14, "cadnet": 8, "intact": 30, "adaptive": 45,
          "one_per_rate": 45}  # fmt: skip
SCORING = 0.05  # hours
# The order of a plan: what others begin from, the second control, systems, rows of papers, the
# longest run, second seeds.
FIRST, CONTROL, SYSTEM, ROW, LONG, SEED = range(6)
# What a later scoring of a trained model puts in the place of the run's own.
SCORED = (
    "per_rate", "mean_lr", "mixed", "enlarged", "image_quality", "flip", "queries",
    "queries_per_rate", "standard_error", "summary", "protocol", "split_id", "manifest_sha256",
)  # fmt: skip
# Data sets whose queries are of low resolution already: a protocol other than each-rate is theirs.
LR_QUERIES = ("caviar", "caviar-native", "mlr")
# Data sets and protocols that are trained on other images than each-rate has, or refuse it.
OWN_IMAGES = (*LR_QUERIES, "csv", "rain-code")


def call(recipe, folder, *arguments):
    """Runs a recipe into a folder."""
    print(f"\n== {folder.name}: recipes/{recipe}.py {' '.join(arguments)}", flush=True)
    verb = ["evaluate"] if recipe == "evaluate" else ["train", recipe]
    command = [sys.executable, "-m", "keras_xreid", *verb, *arguments, "--out", str(folder)]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise xr.InputError(f"{folder} was not finished (exit status {status})")


def run(recipe, folder, *arguments):
    """Runs a recipe into a folder unless it is finished there; returns its metrics."""
    options = settings.parsed(recipes.options(recipe), arguments, prog=f"{recipe}.py")
    if not (folder / "report.md").exists():
        resume = ["--resume"] if (folder / "options.json").exists() else []
        call(recipe, folder, *arguments, *resume)
    metrics = read_metrics(folder / "metrics.json", needed=("options",))
    # A row that was run before may have been run otherwise.
    asked = settings.plain(options)
    asked["backend"] = keras.backend.backend()
    for name, value in asked.items():
        found = metrics["options"].get(name, value)
        # What it begins from may be called otherwise.
        same = name in ("reid", "weights") and provenance.same_start(
            name, metrics["options"], value
        )
        if found != value and not same:
            raise xr.InputError(
                f"{folder} was run with {name} = {found}, not {value}: give another --out"
            )
    return metrics


def name_of(command):
    """A folder's name for a recipe and its options."""
    name = "-".join(word.lstrip("-") for word in command.split())
    return re.sub(r"[^\w.-]", "-", name)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        command: a recipe and its options.
        epochs: how often it sees each training image, or pair.
        name: of its folder; made of the command if not given.
        stage: its place in a plan.
        start: what a strong row begins from: another row's name, or "preset", as the preset does.
        scored: options of xreid evaluate that score the trained model once more, after a name.
        share: about how much of the training set it sees.
    """

    command: str
    epochs: int
    name: str | None = None
    stage: int = ROW
    start: str = "control-hr"
    scored: tuple = ()
    share: float = 1


@dataclasses.dataclass(frozen=True)
class Job:
    """One command. In its words {run:NAME} is the folder of a job that must be done before."""

    name: str
    recipe: str
    words: tuple
    stage: int
    images: float = 0  # for each image of the training set
    scores: str | None = None  # the job whose model it scores

    @property
    def needs(self):
        return list(dict.fromkeys(re.findall(r"\{run:([\w.-]+)\}", " ".join(self.words))))

    def command(self):
        words = [w if "{" in w else shlex.quote(w) for w in self.words]
        return " ".join(["python", f"recipes/{self.recipe}.py", *words, "--out", "{out}"])

    def hours(self, training_images):
        """Core-hours expected of the strong preset."""
        speed = SPEEDS.get(self.recipe, min(SPEEDS.values()))
        return self.images * training_images / speed / 3600 + SCORING


class Jobs:
    """The jobs of some rows, what they begin from included; each command is there once.

    A protocol changes no training image, so a trained row is scored by it afterwards.

    Args:
        options: `tables.Options` with a preset.
        root: folder of the runs, which lie in NAME or NAME/run.
        control: the row that strong rows begin from.
        train: run what is not finished; else it is None.
    """

    def __init__(self, options, root, control, train=True):
        self.options, self.root, self.control, self.train = options, Path(root), control, train
        self.jobs, o = {}, options
        apart = o.protocol not in (None, "each-rate") and not {o.data, o.protocol} & {*OWN_IMAGES}
        self.scored_by = o.protocol if apart else None

    def of_row(self, row, seeds):
        """Adds the jobs of a row; returns the names of the last ones, one a split and seed."""
        names = []
        for split_id in self.options.split_id:
            for seed in seeds:
                name = self._train(row, seed, split_id)
                labels, scored = list(row.scored[:1]), list(row.scored[1:])
                labels += [self.scored_by] if self.scored_by else []
                if self.options.repeats > 1:
                    scored += ["--repeats", str(self.options.repeats)]
                    labels.append(f"repeats{self.options.repeats}")
                if labels:
                    words = ["--weights", f"{{run:{name}}}", *self._shared("evaluate", split_id)]
                    again, words = "-".join([name, *labels]), [*words, *scored]
                    self._add(again, "evaluate", words, self.jobs[name].stage, 0, name)
                    name = again
                names.append(name)
        return names

    def metrics(self, name):
        """What a job found; None where it is not finished and not to be run.

        "folder" is its folder, and "trained" that of the model.
        """
        job, folder = self.jobs[name], self.finished(name)
        base = self.metrics(job.scores) if job.scores else {}
        if not self.train and (folder is None or base is None):
            return None
        if self.train:
            folder = folder or self.root / name
            words = [re.sub(r"\{run:([\w.-]+)\}", self._folder_of, word) for word in job.words]
            if not job.scores:
                run(job.recipe, folder, *words)
            elif not self.finished(name):
                call(job.recipe, folder, *words)
        needed = ("system", "dataset", "per_rate", "queries", "seconds")
        found = read_metrics(folder / "metrics.json", needed)
        if job.scores:
            weights, told = provenance.trained_file(base["trained"]), found.get("weights_sha256")
            if weights and told and told != hub.sha256_of(weights):  # trained anew since
                raise xr.InputError(
                    f"{folder} holds scores of other weights than {weights}: remove it"
                )
            found = {**base, **{key: found.get(key) for key in SCORED}}
        return {"trained": folder, **found, "folder": folder}

    def finished(self, name):
        """The folder of a finished run, or None."""
        last = "metrics.json" if self.jobs[name].scores else "report.md"
        places = (self.root / name, self.root / name / "run")
        return next((place for place in places if (place / last).exists()), None)

    def plan(self, training_images):
        """Lines of a queue: name, needs, core-hours and command, with tabs between."""
        lines, total = ["# name\tneeds\tcore-hours\tcommand"], 0.0
        for job in sorted(self.jobs.values(), key=lambda job: job.stage):
            places = (self.root / job.name, self.root / job.name / "run")
            if self.finished(job.name):
                lines.append(f"# finished: {job.name}")
            elif any((place / "options.json").exists() for place in places):
                lines.append(f"# begun: {job.name}")
            else:
                hours = job.hours(training_images)
                total += hours
                cells = [job.name, ",".join(job.needs) or "-", f"{hours:.2f}", job.command()]
                lines.append("\t".join(cells))
        count = sum(line[0] != "#" for line in lines)
        if self.options.preset == "strong":
            return [*lines, f"# {count} jobs, {total:.1f} core-hours"]
        return [*lines, f"# {count} jobs; core-hours are those of the strong preset's network"]

    def _folder_of(self, match):
        self.metrics(match[1])
        return str(self.finished(match[1]) or self.root / match[1])

    def _train(self, row, seed, split_id):
        recipe, *settings = row.command.split()
        o, name = self.options, row.name or f"row-{name_of(row.command)}"
        name += self._suffix(seed, split_id)
        words = [*self._shared(recipe, split_id, seed), "--epochs", str(row.epochs), *settings]
        words += self._start(row, recipe, seed, split_id)
        if recipe == "baseline" and o.preset == "paper" and not o.backbone:
            words += ["--backbone", "resnet50"]  # as the systems of its tables have
        stage = SEED if seed and row.stage in (CONTROL, SYSTEM, ROW) else row.stage
        images = row.epochs * (1 if recipe == "baseline" else 2) * row.share
        self._add(name, recipe, words, stage, images)
        return name

    def _start(self, row, recipe, seed, split_id):
        """What a row begins from: --weights as given, or the control, or INTACT's own stage 1."""
        o = self.options
        trained = provenance.began_from({"weights": o.weights})
        given = ["--weights", o.weights] if o.weights else []
        if row.start == "preset":
            return [] if trained else given
        if recipe == "intact":
            if trained:
                return ["--reid", trained]
            strong = o.preset == "strong" and not given
            reid = self._control(split_id) if strong else self._reid(seed, split_id, given)
            return ["--reid", f"{{run:{reid}}}"]
        if given or o.preset != "strong":
            return given
        if row.start == self.control.name:
            return ["--weights", f"{{run:{self._control(split_id)}}}"]
        return ["--weights", f"{{run:{row.start}{self._suffix(seed, split_id)}}}"]

    def _control(self, split_id):
        return self._train(self.control, 0, split_id)

    def _reid(self, seed, split_id, given):
        o, name = self.options, f"reid{self._suffix(seed, split_id)}"
        words = [*self._shared("baseline", split_id, seed), *given]
        words += ["--epochs", str(o.reid_epochs)] if o.reid_epochs else []
        epochs = o.reid_epochs or recipes.load("baseline").EPOCHS[o.preset]
        self._add(name, "baseline", words, FIRST, epochs)
        return name

    def _shared(self, recipe, split_id, seed=0):
        """Options of every row, those that the recipe has and that are not its default."""
        o = self.options
        if recipe == "evaluate":
            from keras_xreid.app.evaluate import Options as kind
        else:
            kind = settings.options_class(recipes.options(recipe))
        asked = {
            "preset": o.preset, "data": o.data, "data_dir": o.data_dir, "split": o.split,
            "fold": o.fold, "split_id": split_id, "seed": seed, "protocol": o.protocol,
            "precision": o.precision, "backbone": o.backbone, "limit": o.limit, "steps": o.steps,
        }  # fmt: skip
        if recipe != "evaluate" and self.scored_by:
            del asked["protocol"]
        default = {field.name: field.default for field in dataclasses.fields(kind)}
        words = []
        for name, value in asked.items():
            told = name in ("preset", "data") or value != default.get(name)
            if name in default and told:
                words += [f"--{name.replace('_', '-')}", str(value)]
        return words

    def _add(self, name, recipe, words, stage, images=0, scores=None):
        self.jobs.setdefault(name, Job(name, recipe, tuple(words), stage, images, scores))

    def _suffix(self, seed, split_id):
        dev = f"-dev{self.options.fold or ''}" if self.options.split == "dev" else ""
        return dev + f"-split{split_id}" * bool(split_id) + f"-seed{seed}" * bool(seed)

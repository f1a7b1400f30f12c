"""An ultralytics trainer that resumes as if nothing had happened: to the same weights, bit for bit on a CPU.

Ultralytics' own trainer resumes from the moving average of the weights in half precision, and forgets the random
generators, the images that its loader has drawn ahead and the gradients that are being accumulated.
"""

import io
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOCAL_RANK, RANK
from ultralytics.utils.patches import torch_load
from ultralytics.utils.torch_utils import torch_distributed_zero_first, unwrap_model

from model.common.files import atomic_path, fsync, write_text
from model.detection.detector import FINAL

IS_FIRST = RANK in {-1, 0}
"""Whether this process writes: the only one, or the first of several GPUs'."""


class ResumableTrainer(DetectionTrainer):
    """Saves all that an epoch leaves to the next one, and lets nothing else pass from one to the next.

    `last.pt` is written at once: an epoch is saved whole or not at all. What is derived from it, `best.pt` and lines in
    the table of epochs, is put right when the training resumes. An epoch's random numbers depend on the seed and the
    epoch's number alone, and each epoch ends with a step of the optimiser.

    What this costs an epoch: about 0.1 s for each of the loader's processes, which start anew, and the time in which
    they load their first batches, as they load nothing ahead during the validation. And an epoch that has fewer batches
    than make a step makes one of them all the same.
    """

    accumulate: int
    last: Path
    best: Path

    def check_resume(self, overrides: dict[str, Any]) -> None:
        super().check_resume(overrides)
        self.is_over = bool(self.resume and torch_load(self.args.resume, map_location="cpu")["stop"])

    def _do_train(self) -> None:
        if self.is_over:
            self._finish()
        else:
            super()._do_train()

    def _finish(self) -> None:
        """What is left of a training that was killed after its last epoch."""
        if self.world_size > 1:
            self._setup_ddp()
        self._setup_train()
        self.final_eval()
        if IS_FIRST and self.args.plots:
            self.plot_metrics()

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        if ckpt is None or not self.resume:
            return
        if self.is_over:
            self.epoch, self.best_fitness = ckpt["epoch"], ckpt["best_fitness"]
        else:
            super().resume_training(ckpt)
            unwrap_model(self.model).load_state_dict(ckpt["model"])
        if IS_FIRST:
            lines = self.csv.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(self.csv, "".join(lines[: 1 + ckpt["epoch"] + 1]))  # a header, and what is saved
            self._save_best(ckpt["train_metrics"]["fitness"])

    def _model_train(self) -> None:
        """Called as an epoch begins: everything random in it is derived from the seed and its number."""
        super()._model_train()
        self.batches = self.unapplied = 0
        # An epoch that is done again after a loss that was not finite is another one.
        entropy = (self.args.seed, self.epoch, self.nan_recovery_attempts, RANK + 1)
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.train_loader.reset()
        self.train_loader.generator.manual_seed(seed)
        # Mosaics are made of the images loaded last, which the loader keeps, changed in place by what augments them.
        dataset = self.train_loader.dataset
        for index in dataset.buffer:
            dataset.ims[index] = None
        dataset.buffer = random.sample(range(dataset.ni), min(dataset.batch_size, dataset.ni))

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.accumulate:  # ultralytics has just said how many batches make a step: at the start, and in warm-up
            self.batches_a_step = self.accumulate
        self.accumulate = 0  # so that it calls optimizer_step after every batch
        return super().preprocess_batch(batch)

    def optimizer_step(self) -> None:
        """Called after every batch: makes a step if it is due. The last batch of an epoch leaves no gradients."""
        self.batches, self.unapplied = self.batches + 1, self.unapplied + 1
        is_last = self.batches == len(self.train_loader)
        if is_last or self.unapplied >= self.batches_a_step:
            super().optimizer_step()
            self.unapplied = 0
        if is_last:
            self.train_loader.reset()  # its processes would load batches of an epoch that begins anew

    def save_model(self) -> bool:
        """Write `last.pt` as ultralytics does, but with the weights themselves, and everything in full precision."""
        fsync(self.csv)
        last, best = self.last, self.best
        with atomic_path(last) as temporary:
            self.last = self.best = temporary
            try:
                super().save_model()
            finally:
                self.last, self.best = last, best
            content = torch_load(temporary, map_location="cpu")
            content["ema"].float().load_state_dict(self.ema.ema.state_dict())
            content["model"] = unwrap_model(self.model).state_dict()
            content["optimizer"] = self.optimizer.state_dict()
            content["stop"] = bool(self.stop)
            stream = io.BytesIO()  # written to a full disk, torch says neither that nor which file
            torch.save(content, stream)
            temporary.write_bytes(stream.getbuffer())
        self._save_best(self.fitness)
        return True

    def _save_best(self, fitness: float) -> None:
        """Keep the epoch saved last, of this fitness, if it is the best."""
        if fitness == self.best_fitness:
            with atomic_path(self.best) as temporary:
                shutil.copyfile(self.last, temporary)

    def final_eval(self) -> None:
        """Validate the best weights. Ultralytics strips checkpoints in place: here it does so to copies of them."""
        final = self.wdir / FINAL
        with torch_distributed_zero_first(LOCAL_RANK):
            if IS_FIRST:
                final.mkdir(exist_ok=True)
                for path in (self.last, self.best):
                    shutil.copyfile(path, final / path.name)
        self.last, self.best = final / self.last.name, final / self.best.name
        super().final_eval()

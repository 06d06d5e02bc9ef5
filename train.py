"""Train the baseline, one GRU, to imitate the BabyAI bot.

    python train.py --task_id BabyAI-GoToObj-v0
    python train.py --task_id BabyAI-GoToLocal-v0 --lang_fusion attention --trial 1 --seed 7

Writes checkpoints and metrics.csv to <checkpoint_dir>/<task_id>/trial_<trial>/[seed_<seed>/]. Ctrl-C saves first;
the same command with --resume goes on.
"""

from basics.errors import run_script
from training.run import train_from_command_line

if __name__ == "__main__":
    run_script(lambda: train_from_command_line(__doc__, "baseline"))

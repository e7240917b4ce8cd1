"""Types and reasons of conditions. Every reason that a status can bear stands here, with when it is set."""

from __future__ import annotations

# --- types: names as batch/v1 Job and Kubeflow's TrainJob use them, so that `kubectl wait --for=condition=Complete` is what people guess
READY = "Ready"  # the summary; its reason is the stage
PREPARED = "Prepared"  # model and datasets are on the volume and checked
TRAINED = "Trained"  # the adapter or the tuned weights are on the volume
MERGED = "Merged"  # the merged model is on the volume and its parity was measured
SERVED = "Served"  # a pod has answered a completion
COMPLETE = "Complete"  # everything that was asked for was reached once; terminal
FAILED = "Failed"  # the job cannot go on; terminal
SUSPENDED = "Suspended"  # spec.suspend is honoured
RECONCILING = "Reconciling"  # kstatus: present only while work is under way
STALLED = "Stalled"  # kstatus: present only after a terminal failure, and while serving cannot start

# --- reasons of Ready: the stage, shown in the STATUS column
PENDING = "Pending"  # first seen; nothing was created yet
QUEUED = "Queued"  # a queue (Kueue) or the scheduler holds a pod back
SUSPENDED_BY_USER = "Suspended"  # spec.suspend is true
PREPARING = "Preparing"  # the prepare Job runs
TRAINING = "Training"  # the training Job runs
RETRYING = "Retrying"  # an attempt failed for no fault of the user's; the next starts after a pause
MERGING = "Merging"  # the merge Job runs
DEPLOYING = "Deploying"  # the Deployment has no pod yet that has answered
NOT_STARTING = "NotStarting"  # no pod of the Deployment answered in time (serving.startupSeconds); over once one does
SERVING = "Serving"  # a pod has answered
COMPLETED = "Completed"  # done, and serving was not asked for

# --- reasons of the stage conditions
WAITING = "Waiting"  # an earlier stage is not done
RUNNING = "Running"  # the stage's child runs
SUCCEEDED = "Succeeded"  # the stage is done
NOT_REQUESTED = "NotRequested"  # the spec does not ask for the stage
ANSWERING = "Answering"  # Served: ready pods answer
NOT_ANSWERING = "NotAnswering"  # Served: no pod is ready (any more)

# --- reasons of Failed; the first group is the user's to mend, and never retried
INVALID_SPEC = "InvalidSpec"  # the spec contradicts itself in a way that the schema could not refuse
INVALID_DATA = "InvalidData"  # prepare found rows that cannot be trained on; the message has file:line
MODEL_UNUSABLE = "ModelUnusable"  # the base model is missing, gated, not safetensors, or not a causal language model
SOURCE_UNREACHABLE = "SourceUnreachable"  # a hub, claim or bucket did not give the files
OUT_OF_MEMORY = "OutOfMemory"  # exit code 71, or the kernel killed the container for its memory
STORAGE_FULL = "StorageFull"  # exit code 72
LOSS_NOT_FINITE = "LossNotFinite"  # exit code 73
NO_PROGRESS = "NoProgress"  # exit code 74: no step within the watchdog's time
PREEMPTED = "Preempted"  # exit code 75: the pod was told to stop and saved a checkpoint; always tried again
INTERNAL_ERROR = "InternalError"  # exit code 70: a fault of this project
INFRASTRUCTURE = "Infrastructure"  # the pod or node was lost, or the container was killed; tried again
PARITY_LOST = "ParityLost"  # the merged model answers otherwise than base + adapter
RETRIES_EXHAUSTED = "RetriesExhausted"  # maxRetries attempts failed
DEADLINE_EXCEEDED = "DeadlineExceeded"  # activeDeadlineSeconds have passed
CHECKPOINT_SKIPPED = "CheckpointSkipped"  # of an event: a checkpoint was damaged or another training's
BASE_NOT_ROUNDED = "BaseNotRounded"  # of an event: FP8Base would change the loss too much; computed in BF16
NAME_TAKEN = "NameTaken"  # an object with a child's name exists and belongs to somebody else
CLAIM_NOT_FOUND = "ClaimNotFound"  # storage.claim or a pvc:// source names a claim that does not exist

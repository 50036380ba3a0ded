"""WMDD on handwritten digits: the smallest honest run.

Method:   H. Liu et al., "Dataset Distillation via the Wasserstein Metric", ICCV 2025,
          https://arxiv.org/abs/2311.18531, and its baselines, on the embedded digits.
Command:  python -m launch.recover && python -m launch.evaluate
Hardware: two CPU cores, a few minutes, compilation included.
Expected: the table in the README.

Every field can be changed on the command line: --config.methods.wmdd.num_steps=9.
"""

from ml_collections import config_dict

from configs import common


def get_config(arg=None):
    """The config; `arg` "quick" shrinks it to seconds."""
    return common.finish(base(), arg)


def base():
    """All fields, for other configs to change."""
    config = config_dict.ConfigDict()
    config.name = "default"  # of the work folder, runs/<name>
    config.seed = 0  # of everything
    config.save_every_s = 60.0  # seconds between states of unfinished stages

    config.data = config_dict.ConfigDict()
    config.data.name = "digits"  # embedded; others: python -m launch.prepare
    config.data.folder = ""  # where prepared sets are; $TFDS_DATA_DIR or TFDS's own
    config.data.size = 0  # pixels, to resize and crop to; 0: as the images are
    config.data.memory_gb = 4.0  # a larger set stays on disk and is streamed
    config.data.workers = 0  # processes that decode a streamed set; 0: threads
    # What networks subtract from pixels and divide them by, channel by channel: empty
    # for the training images' own mean and standard deviation.
    config.data.mean = ()
    config.data.std = ()
    # Share of the training images kept out of training and scored *instead of* the
    # test split: for choosing any number in this file. 0 for the final scores.
    config.data.holdout = 0.0

    convnet = {
        "name": "convnet",
        "width": 32,
        "depth": 3,
        "norm": "batch",
        "initializer": "torch",
        # Of convolutions and products: "float32", or "bfloat16", sooner on most
        # accelerators. Every network has this option; norms, the last layer, losses and
        # parameters stay float32.
        "dtype": "float32",
    }

    config.squeeze = config_dict.ConfigDict()
    config.squeeze.model = dict(convnet)  # a network of ddjax/models, and its options
    # A teacher to use instead: the folder of a finished one, or a file of weights
    # (.pth, .safetensors) with a file that names its classes, one a line, in order
    # ("sorted": this data's classes, in alphabetical order, as in torchvision).
    config.squeeze.restore = ""
    config.squeeze.restore_classes = ""
    config.squeeze.optimizer = "sgd"  # "sgd" (with momentum) or "adamw"
    config.squeeze.learning_rate = 0.025  # at the start
    config.squeeze.schedule = "cosine"  # to 0, by epoch; or "constant"
    config.squeeze.momentum = 0.9
    config.squeeze.weight_decay = 1e-4
    config.squeeze.batch_size = 32  # images
    config.squeeze.epochs = 50
    config.squeeze.crop_scale = (0.5, 1.0)  # share of the area; (1, 1) for no crop
    config.squeeze.flip = False  # a mirrored digit is another sign
    # A penalty on the curvature of the teacher's loss around the images, as GUARD has
    # it, added to the loss: see ddjax/losses/curvature.py.
    config.squeeze.curvature = {
        "form": "loss_difference",  # or "gradient_difference", "hessian_norm", ...
        "weight": 0.0,  # 0 for none
        "h": 3.0,  # length of the step
        "direction": "gradient",  # or "sign", of the gradient
        "units": "model",  # of h: "pixels" of [0, 1], or these divided by their std;
        # "model_rms", "pixels_rms": h is for one component, whatever their number
        "statistics": "running",  # of BatchNorm, or "batch": flat as it is trained
        "literal": False,  # the released code's 1e-7 and its mean over the batch
    }
    # Training on the images of a PGD attack in place of the images (Madry et al.).
    config.squeeze.adversarial = {
        "eps": 0.0,  # largest change, in pixels of [0, 1]; 0 for none
        "num_steps": 3,
        "step_size": config_dict.placeholder(float),  # none: 2.5 eps / num_steps
    }

    # Other teachers, by a name of one's own: what differs from config.squeeze. An arm
    # "sre2l+NAME/noise" inverts that teacher, and its students learn from it.
    config.teachers = config_dict.ConfigDict()

    # Networks that a method with networks="pool" matches images through: each from its
    # own seed, and trained as config.squeeze says but for the epochs.
    config.pool = {"size": 10, "epochs": 60}

    # A diffusion model of the images, for methods that sample from one.
    config.generator = config_dict.ConfigDict()
    config.generator.space = "pixels"  # it works in, or "latents" of an autoencoder
    config.generator.model = {  # options of ddjax/models/dit.py
        "width": 64,
        "depth": 3,
        "heads": 2,
        "patch": 2,  # pixels a side, or places of the latents
        "learn_sigma": False,  # the variance of its steps too; DiT does
        "dtype": "float32",  # or "bfloat16"
        "remat": False,  # less memory for more time
        "scan": False,  # over the blocks: deep ones compile sooner
    }
    config.generator.num_steps = 4000
    config.generator.batch_size = 64
    config.generator.learning_rate = 2e-3  # of AdamW
    config.generator.warmup = 200  # steps, from 0
    config.generator.decay = "cosine"  # to 0 at the end; or "constant"
    config.generator.weight_decay = 0.0
    # Of the parameters that are kept, a moving average: 0.9999 for hundreds of
    # thousands of steps; it has to forget where it began.
    config.generator.ema = 0.995
    config.generator.label_dropout = 0.1  # share shown without their class
    config.generator.flip = False
    # Of the noise, over so many timesteps: "linear" as DiT has it, or "cosine", with
    # less noise at most of them, as images of few pixels need.
    config.generator.schedule = "cosine"
    config.generator.timesteps = 1000
    config.generator.autoencoder = {  # options of ddjax/models/autoencoder.py
        "widths": (32, 64),  # each beyond the first halves the sides
        "blocks": 1,
        "channels": 4,
        "groups": 8,
        "scale": 0.18215,  # one that is trained here is made for it
    }
    config.generator.autoencoder_training = {
        "num_steps": 2000,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "kl_weight": 1e-6,
        "flip": False,
    }
    # Published weights in the place of training: a file of DiT's (.pt, .safetensors)
    # with its number of classes and the class that each of ours is; 0 and () where they
    # are ours. And a file of Stable Diffusion's autoencoder.
    config.generator.restore = ""
    config.generator.restore_classes = 0
    config.generator.restore_labels = ()
    config.generator.restore_autoencoder = ""
    # Of samples.png: steps of DDPM, and the scale of classifier-free guidance.
    config.generator.picture = {"steps": "50", "scale": 1.5}

    # Networks whose gradients guide what a generator samples, and how they are trained:
    # one of their kind, kept at the epochs where its gradients have turned (IGD).
    config.surrogates = {
        # Without running statistics. IGD: 128 wide and 6 deep, for 256 pixels.
        "model": {**convnet, "norm": "instance"},
        "optimizer": "sgd",
        "learning_rate": 0.01,  # constant
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "batch_size": 64,
        "epochs": 50,
        "crop_scale": (1.0, 1.0),
        "flip": False,
        "threshold": 0.7,  # cosine to the last kept epoch, below which one is kept
        "most": 4,  # epochs kept; where there would be more, the threshold is lowered
        "images": 200,  # of each class, at most, whose mean gradient counts
    }

    config.stats = config_dict.ConfigDict()
    config.stats.batch_size = 100  # images the teacher sees at a time
    config.stats.exact = True  # class variance; False for WMDD's average over batches
    # What stands for a class: "wasserstein" (its barycenter), or, to compare with,
    # "sliced", "mmd", or "reference" (WMDD's damped code for learned weights).
    # "product" is a barycenter in the product space of stats.product.
    config.stats.target = "wasserstein"
    config.stats.weights = "uniform"  # of the atoms: "uniform", "learned", "voronoi"
    config.stats.init = "data"  # the first atoms: "data" or "k-means++"
    config.stats.restarts = 1  # from as many first atoms; the best is kept
    config.stats.solver = "semidual"  # or "lp" (exact plans) or "sinkhorn"
    config.stats.epsilon = 0.01  # of sinkhorn, in units of the mean cost
    config.stats.iterations = 100  # most alternations of a barycenter
    config.stats.projections = 512  # directions of "sliced"
    # Curved factors see features projected, around their mean: see
    # ddjax/matching/frame.py. WMDD's images are then matched to atoms in the product.
    config.stats.product = {
        "weights": (1 / 3, 1 / 3, 1 / 3),  # Euclidean, hyperbolic, spherical; 0: none
        "curvatures": (1.0, 1.0),  # absolute values, of the hyperbolic, the spherical
        "dims": (128, 128),  # of these two; the Euclidean one is the features
        "scale": 1.0,  # typical distance of a point from the origin
    }

    config.recover = config_dict.ConfigDict()
    config.recover.method = "wmdd"  # a module of ddjax/methods
    # The "real" image nearest to the atom, a "random" one, or "noise".
    config.recover.start = "real"
    config.recover.ipc = (1, 10)  # images per class
    config.recover.sets = 3  # distilled sets for each ipc, from as many seeds
    config.recover.batch_size = 100  # images of a chunk, at most

    # How each method moves its pixels, and the arguments of its loss; any number may be
    # pairs (ipc, number from that ipc on). Chosen for WMDD
    # and for SRe2L on a held-out fifth of the training images, one number at a time:
    # learning rates from 0.03, BatchNorm weights from 0.01 to 100, with and without
    # crops and rolls, 500 and 1500 steps. CDA has SRe2L's.
    pixels = {
        "num_steps": 500,  # of the optimiser, for each chunk
        "learning_rate": 0.25,  # of Adam, in normalised pixels; cosine to 0
        # How images are cut into chunks: "classes" (all images of a class together,
        # which per-class statistics need), "images" (one of each class: SRe2L), or
        # "whole" (all in one: DC's network and GeoDM's curvatures learn from all).
        "layout": "images",
        # Each step sees the chunk through one crop, one flip and one roll.
        "crop_scale": (0.5, 1.0),  # share of the area; (1, 1) for no crop
        "flip": False,
        "jitter": 1,  # largest roll, pixels
    }
    config.methods = config_dict.ConfigDict()
    config.methods.wmdd = {
        **pixels,
        "learning_rate": 0.1,
        "layout": "classes",
        "crop_scale": (1.0, 1.0),  # 8x8 pixels leave nothing to crop
        "jitter": 0,
        "match": "atoms",  # "mean": only the mean of each class, the linear MMD
        "bn_weight": 10.0,
        "ce_weight": 1.0,
    }
    config.methods.sre2l = {**pixels, "bn_weight": 1.0, "first_bn_weight": 10.0}
    config.methods.cda = {**pixels, "bn_weight": 1.0, "first_bn_weight": 10.0}

    # Other settings of a method, by a name of one's own: an arm "dm.NAME/random" has
    # the fields of changes.NAME in the place of those of methods.dm.
    config.changes = config_dict.ConfigDict()

    # How students are trained: what differs from the recipes of ddjax/recipes.py, each
    # of which has a section with the same fields; None is as the recipe has it. Only
    # WMDD's rate was chosen on these images, on the held-out fifth.
    config.recipes = common.recipe_changes()
    common.for_all_recipes(config, flip=False)
    config.recipes.wmdd.crop_scale = (0.5, 1.0)
    config.recipes.wmdd.learning_rate = 5e-3
    config.recipes.dm.dsa = common.WITHOUT_FLIP
    common.without_mosaics(config)

    # Of labels with "+lia", which several teachers give: the mean of the first few, by
    # images per class. Arms with a teacher of their own keep it alone.
    config.relabel = {
        "teachers": ("",),  # names of config.teachers, best first; "": the main one
        # How many: pairs (ipc, teachers from it on), or one number for every ipc.
        "schedule": ((1, 1), (10, 2), (50, 4), (100, 6)),
        # Instead: the best on a share of the training images, evaluate.search_holdout.
        "auto": False,
        "average": "logits",  # or "probs"
        "standardise": False,  # first scales the logits of each to one norm
    }

    config.student = config_dict.ConfigDict()
    # Networks to train, by a name of one's own; VGG-11 needs 28 pixels.
    config.student.models = {
        "convnet": dict(convnet),
        "resnet18": {"name": "resnet18", "width": 16, "stem": "3x3"},
        "mobilenet_v2": {"name": "mobilenet_v2", "width": 0.25},
        "vit_tiny": {"name": "vit_tiny", "width": 48, "depth": 6},
    }

    config.evaluate = config_dict.ConfigDict()
    # What ours is compared with: baselines, or "method/start".
    config.evaluate.against = (
        "random",
        "herding",
        "kcenter",
        "kmeans",
        "rded",
        "sre2l/noise",
        "wmdd/noise",
    )
    config.evaluate.sets = ()  # folders of sets from elsewhere: launch.import_set
    # "hard": classes. "single": the teacher's logits on each image. "stored": those on
    # every view. "online": the same, but students ask the teacher, nothing is stored.
    # "+lia" behind one of these three: several teachers, see config.relabel.
    config.evaluate.labels = ("hard", "stored")
    # Sections of config.recipes; "wmdd+plain": the same without any augmentation.
    config.evaluate.recipes = ("wmdd",)
    config.evaluate.models = ("convnet",)  # of config.student.models
    config.evaluate.students = 1  # students for each distilled set
    # Of the bounds: all images, and random ones that take as many bytes as ours with
    # their soft labels. 0 for none.
    config.evaluate.whole_epochs = 60
    # What students are attacked with (see ddjax/attacks/suites.py), each by itself on
    # all images: "pgd100", "square", "autoattack" ...; nothing where empty.
    config.evaluate.attacks = ()
    config.evaluate.radii = (1.0, 2.0, 4.0)  # of the attacks, in 1/255 of the range
    config.evaluate.radii_l2 = (
        32.0,
        64.0,
        128.0,
    )  # of those in L2, such as "pgd100_l2"
    config.evaluate.attack_images = 0  # of the test images; 0 for all
    config.evaluate.attack_batch = 250  # images that a device attacks at a time
    # Rates that every arm chooses from, scored on a share of the training images that
    # the whole pipeline does without; empty for the recipes' own rates.
    config.evaluate.learning_rates = ()
    config.evaluate.search_holdout = 0.2
    # Strengths of the curvature penalty that teachers of arms choose from, for each
    # ipc, on as much, under an attack with the config's radii; empty for their own.
    config.evaluate.strengths = ()
    config.evaluate.search_attack = "pgd20"
    config.evaluate.quality = True  # neighbours, copies, redundancy and W2 of each set

    return config

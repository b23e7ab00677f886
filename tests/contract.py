"""What every network of this library promises, as classes of tests; a network's own test class takes a few lines."""

import copy
import pickle
from typing import Any, ClassVar

import micro
import numpy as np
import pytest
import timm.optim
import torch
from timm.models._manipulate import group_parameters
from torch import Tensor, nn
from torch.nn import functional as F

import mfsf2


class NetworkContract:
    """The part of the contract that holds for every task."""

    name: str
    num_classes: int
    first_head: str
    default_drop_rate: float
    drop_rates: ClassVar[dict[str, float]] = dict(drop_rate=0.0, drop_path_rate=0.0)
    """Arguments that turn all randomness of training off."""
    beside_the_image: tuple[str, ...] = ("?",)
    """Beginnings of the names of parameters that an image alone does not reach."""
    head_args: ClassVar[dict[str, int | None]] = {}
    """Arguments of the class that give it the name's heads, where they are not the default."""
    is_micro = True
    """Whether the tests run on the network in micro size, or as it is named."""

    def inputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """All inputs of the network that belong to an image."""
        return (x,)

    def run(self, model: Any, x: Tensor) -> Tensor:
        """All that the network returns for an image, in one tensor."""
        outputs = model(*self.inputs(x))
        return outputs if isinstance(outputs, Tensor) else torch.cat([y.flatten(1) for y in outputs], dim=1)

    def create(self, **kwargs: Any) -> Any:
        """As ``mfsf2.create_model``."""
        return micro.create(self.name.removeprefix("mfsf2_tiny_"), self.is_micro, **kwargs)

    def build(self, **kwargs: Any) -> Any:
        return micro.build(self.name.removeprefix("mfsf2_tiny_"), is_micro=self.is_micro, **kwargs)

    def image(self, batch: int = 2, height: int = 64, width: int = 96, chans: int = 3, seed: int = 1) -> Tensor:
        return torch.randn(batch, chans, height, width, generator=torch.Generator().manual_seed(seed))

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> Any:
        """Shared by tests that do not change it."""
        return cls().build()

    def test_unknown_argument(self) -> None:
        with pytest.raises(TypeError, match="not_an_argument"):
            self.create(not_an_argument=1, device="meta")

    def test_device_and_dtype(self) -> None:
        model = self.build(device="meta", dtype=torch.float64)
        tensors = [*model.parameters(), *model.buffers()]
        assert all(t.is_meta for t in tensors)
        assert {t.dtype for t in tensors} == {torch.float64, torch.int64}

    def test_in_chans(self) -> None:
        model = self.build(in_chans=5)
        assert model.in_chans == 5
        assert self.run(model, self.image(chans=5)).isfinite().all()
        with pytest.raises(ValueError, match="has 3 channels, expected 5"):
            model(self.image())
        with pytest.raises(ValueError, match="in_chans=0"):
            self.build(in_chans=0)
        with pytest.raises(TypeError, match="in_chans='3'"):
            self.build(in_chans="3")

    def test_drop_rates(self) -> None:
        model = self.build(drop_path_rate=0.25, drop_rate=0.4, device="meta")
        rates = {n: m.drop_prob for n, m in model.named_modules() if type(m).__name__ == "DropPath"}
        assert max(rates.values()) == pytest.approx(0.25)
        assert all(name.startswith("encoder.transformer.") for name in rates)
        assert not [m for m in self.build(drop_path_rate=0.0).modules() if type(m).__name__ == "DropPath"]
        assert model.get_submodule(f"{self.first_head}.drop").p == 0.4
        for rate in (-0.1, 1.0):
            with pytest.raises(ValueError, match=f"drop_path_rate={rate}"):
                self.build(drop_path_rate=rate)
        default = self.build(device="meta")
        assert default.get_submodule(f"{self.first_head}.drop").p == self.default_drop_rate
        assert max(m.drop_prob for m in default.modules() if type(m).__name__ == "DropPath") == pytest.approx(0.1)

    def test_feature_info(self, model: Any) -> None:
        maps = model.forward_intermediates(self.image(), intermediates_only=True)
        assert [i["reduction"] for i in model.feature_info] == [4, 8, 16, 32]
        for info, fused in zip(model.feature_info, maps, strict=True):
            assert tuple(fused.shape) == (2, info["num_chs"], 64 // info["reduction"], 96 // info["reduction"])
            assert isinstance(model.get_submodule(info["module"]), mfsf2.FusionStage)

    @pytest.mark.parametrize("out_indices", [None, (0, 1, 2, 3), (1,), (0, 2), (-1,), 2])
    def test_features_only(self, model: Any, out_indices: Any) -> None:
        features = self.build(features_only=True, out_indices=out_indices)
        kept = features.model.state_dict().keys()
        features.model.load_state_dict({k: v for k, v in model.state_dict().items() if k in kept})
        every = model.forward_intermediates(self.image(), intermediates_only=True)
        take = range(4) if out_indices is None else range(2, 4) if out_indices == 2 else out_indices
        for actual, index in zip(features(self.image()), take, strict=True):
            torch.testing.assert_close(actual, every[index])
        assert features.feature_info.channels() == [every[i].shape[1] for i in take]
        assert features.in_chans == 3
        sum(f.sum() for f in features(self.image())).backward()
        unused = [n for n, p in features.named_parameters() if p.grad is None]
        assert all(name.startswith(tuple(f"model.{start}" for start in self.beside_the_image)) for name in unused)

    def test_forward_intermediates(self, model: Any) -> None:
        x = self.image()
        features, every = model.forward_intermediates(x)
        torch.testing.assert_close(features, model.forward_features(x), rtol=0, atol=0)
        for indices, expected in [(2, [2, 3]), ([0, -1], [0, 3]), ([1], [1]), ((2, 0), [2, 0])]:
            for stop_early in (False, True):
                final, some = model.forward_intermediates(x, indices=indices, stop_early=stop_early)
                only = model.forward_intermediates(x, indices, stop_early=stop_early, intermediates_only=True)
                for a, b, i in zip(some, only, expected, strict=True):
                    assert torch.equal(a, every[i]) and torch.equal(b, every[i])
                stopped = stop_early and max(expected) < 3
                assert torch.equal(final, every[max(expected)] if stopped else features)
        for bad in (0, 5, [4], [-5], []):
            with pytest.raises(ValueError, match="indices="):
                model.forward_intermediates(x, indices=bad)
        with pytest.raises(ValueError, match="'NHWC'"):
            model.forward_intermediates(x, output_fmt="NHWC")

    def test_stages_above_are_not_computed(self, model: Any) -> None:
        called = []
        hooks = [
            module.register_forward_hook(lambda *_, n=name: called.append(n))
            for name, module in model.named_modules()
            if name.endswith((".cnn.layer2", ".cnn.layer3", ".transformer.stages.1", ".fusion.pyramid"))
        ]
        model.forward_intermediates(self.image(), indices=[0], stop_early=True)
        assert not called
        for hook in hooks:
            hook.remove()

    def test_group_matcher(self, model: Any) -> None:
        names = [name for name, _ in model.named_parameters()]
        for coarse in (False, True):
            groups = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
            assert set(groups) == set(names)
            assert groups["encoder.cnn.conv1.weight"] == groups["encoder.transformer.patch_embed.proj.weight"] == 0
            order = [
                "encoder.cnn.conv1.weight",
                "encoder.cnn.layer1.0.conv1.weight",
                "encoder.cnn.layer4.1.conv1.weight",
                "encoder.fusion.stages.0.align.cnn.conv.weight",
                "encoder.fusion.stages.3.align.cnn.conv.weight",
                "encoder.fusion.pyramid.psa.fc.weight",
                next(name for name in names if name.startswith(f"{self.first_head}.")),
            ]
            depths = [groups[name] for name in order]
            assert depths == sorted(set(depths))
            stages = [groups[f"encoder.transformer.stages.{i}.norm.weight"] for i in range(4)]
            assert stages == sorted(set(stages))
        fine = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
        assert fine["encoder.cnn.layer1.0.conv1.weight"] < fine["encoder.cnn.layer1.1.conv1.weight"]

    def test_layer_decay(self, model: Any) -> None:
        spared = model.no_weight_decay()
        groups = timm.optim.param_groups_layer_decay(model, layer_decay=0.5, no_weight_decay_list=spared)
        scales = {id(p): g["lr_scale"] for g in groups for p in g["params"]}
        parameters = dict(model.named_parameters())
        assert len(scales) == len(parameters)
        stem, last = (parameters[f"encoder.{n}.weight"] for n in ("cnn.conv1", "fusion.pyramid.psa.fc"))
        assert scales[id(stem)] < scales[id(last)]

    def test_no_weight_decay(self, model: Any) -> None:
        assert model.no_weight_decay() <= {name for name, _ in model.named_parameters()}

    @pytest.mark.parametrize("training", [False, True])
    def test_grad_checkpointing(self, training: bool) -> None:
        model = self.build(**self.drop_rates).train(training)
        results = []
        for enable in (False, True):
            twin = copy.deepcopy(model)
            twin.set_grad_checkpointing(enable)
            output = self.run(twin, self.image())
            output.square().sum().backward()
            results.append((output, {n: p.grad for n, p in twin.named_parameters()}))
        (plain, plain_grads), (saved, saved_grads) = results
        torch.testing.assert_close(saved, plain)
        for name, gradient in plain_grads.items():
            torch.testing.assert_close(saved_grads[name], gradient, rtol=1e-4, atol=1e-6, msg=name)

    def test_grad_checkpointing_reaches_both_branches(self, model: Any) -> None:
        model = copy.deepcopy(model)
        model.set_grad_checkpointing()
        assert model.encoder.cnn.grad_checkpointing
        assert all(stage.grad_checkpointing for stage in model.encoder.transformer.stages)
        model.set_grad_checkpointing(False)
        assert not model.encoder.cnn.grad_checkpointing

    def test_init_weights_after_meta(self) -> None:
        model = self.build(device="meta").to_empty(device="cpu")
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.data.fill_(float("nan") if tensor.is_floating_point() else 9)
        model.init_weights()
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            assert tensor.isfinite().all(), name
        # The same distribution as a network built directly: compare the spread of every large tensor.
        for (name, a), b in zip(model.named_parameters(), self.build().parameters(), strict=True):
            if a.numel() > 2000:
                assert a.std().item() == pytest.approx(b.std().item(), rel=0.2, abs=1e-6), name
        assert self.run(model.eval(), self.image()).isfinite().all()

    def test_every_parameter_learns(self) -> None:
        torch.manual_seed(0)
        model = self.create(**self.drop_rates).train()
        for norm in model.modules():
            # Before a norm that takes the batch's mean, the gradient of a bias is nothing but rounding.
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                norm.eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        for step in range(3):
            optimizer.zero_grad()
            output = self.run(model, self.image(batch=4, seed=step))
            # Not a plain sum of squares: that hardly moves behind a batch norm. Masks have many more entries than there
            # are classes; their sum would saturate the sigmoids in two steps.
            weights = torch.linspace(-1, 1, output.numel()).view_as(output) * 8 / output[0].numel()
            (output * weights).sum().backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, name
                assert step < 2 or parameter.grad.abs().sum() > 0, name
            optimizer.step()

    def test_samples_are_independent(self, model: Any) -> None:
        x = self.image(batch=3)
        changed = x.clone()
        changed[0] = 7 * torch.randn_like(changed[0])
        changed[2] = 0
        torch.testing.assert_close(self.run(model, changed)[1], self.run(model, x)[1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(self.run(model, x[1:2])[0], self.run(model, x)[1], rtol=1e-4, atol=1e-5)

    def test_copies(self, model: Any) -> None:
        expected = self.run(model, self.image())
        fresh = self.build()
        fresh.load_state_dict(model.state_dict())
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), fresh):
            assert torch.equal(self.run(twin, self.image()), expected)

    def test_channels_last(self, model: Any) -> None:
        twin = copy.deepcopy(model).to(memory_format=torch.channels_last)
        x = self.image()
        actual = self.run(twin, x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(actual, self.run(model, x), rtol=1e-4, atol=1e-5)

    def test_float64(self, model: Any) -> None:
        exact = self.run(copy.deepcopy(model).double(), self.image().double())
        assert exact.dtype == torch.float64
        torch.testing.assert_close(self.run(model, self.image()).double(), exact, rtol=0, atol=1e-4)

    def test_bf16(self, model: Any) -> None:
        with torch.no_grad():
            expected = self.run(model, self.image())
            with torch.autocast("cpu", torch.bfloat16):
                autocast = self.run(model, self.image())
            low = self.run(copy.deepcopy(model).bfloat16(), self.image().bfloat16())
        assert low.dtype == torch.bfloat16
        for output in (autocast, low):
            assert (output.float() - expected).norm() <= 0.05 * expected.norm()

    def test_symbolic_trace(self, model: Any) -> None:
        traced = torch.fx.symbolic_trace(model)
        for height, width in [(64, 96), (65, 71)]:
            x = self.image(height=height, width=width)
            torch.testing.assert_close(self.run(traced, x), self.run(model, x), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("size", [(29, 29), (29, 64), (33, 47), (65, 71), (224, 97)])
    def test_any_size(self, model: Any, size: tuple[int, int]) -> None:
        assert self.run(model, self.image(1, *size)).isfinite().all()

    @pytest.mark.parametrize("size", [(64, 64), (29, 29)])
    def test_batch_of_one_with_frozen_norms_trains(self, size: tuple[int, int]) -> None:
        model = self.build().train()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        output = self.run(model, self.image(1, *size))
        assert output.shape[0] == 1 and output.isfinite().all()
        output.sum().backward()

    @pytest.mark.parametrize("size", [(28, 64), (64, 28), (1, 1)])
    def test_too_small(self, model: Any, size: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match=rf"image is {size[0]}x{size[1]} pixels.*29x29"):
            model(self.image(1, *size))

    def test_bad_images(self, model: Any) -> None:
        x = self.image()
        with pytest.raises(ValueError, match=r"image must have shape \(B, 3, H, W\), got \[3, 64, 96\]"):
            model(x[0])
        with pytest.raises(ValueError, match="has 1 channels, expected 3"):
            model(x[:, :1])
        with pytest.raises(ValueError, match="empty batch"):
            model(x[:0])
        with pytest.raises(ValueError, match=r"has 64 channels, expected 3.*x\.permute\(0, 3, 1, 2\)"):
            model(x.permute(0, 2, 3, 1))
        with pytest.raises(TypeError, match=r"torch\.uint8.*255"):
            model(x.to(torch.uint8))
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            with pytest.raises(RuntimeError):
                model(x.to(dtype))
        with pytest.raises(RuntimeError), torch.autocast("cpu", torch.bfloat16):
            model(x.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert self.run(model, x.bfloat16()).isfinite().all()

    def test_save_and_load(self, model: Any, tmp_path: Any) -> None:
        mfsf2.save_pretrained(model, tmp_path / "saved")
        loaded = mfsf2.create_model(f"local-dir:{tmp_path / 'saved'}").eval()
        assert torch.equal(self.run(loaded, self.image()), self.run(model, self.image()))
        assert loaded.model_args == model.model_args
        assert loaded.pretrained_cfg["architecture"] == self.name

    def test_pretrained_cfg(self, model: Any) -> None:
        assert model.pretrained_cfg is model.default_cfg
        cfg, state = model.pretrained_cfg, model.state_dict()
        assert cfg["num_classes"] == model.num_classes == self.num_classes
        assert cfg["input_size"][0] == model.in_chans
        classifier = cfg["classifier"]
        for layer in (*([classifier] if isinstance(classifier, str) else classifier), *cfg["first_conv"]):
            assert f"{layer}.weight" in state
        assert "label_names" not in cfg

    def test_defaults_of_the_class_are_the_largest_network(self) -> None:
        named = mfsf2.create_model(self.name.replace("_tiny", ""), device="meta")
        direct = type(named)(device="meta", **self.head_args).state_dict()
        assert {k: v.shape for k, v in direct.items()} == {k: v.shape for k, v in named.state_dict().items()}


class ClassifierContract(NetworkContract):
    """What networks with a head of classes promise beyond that."""

    num_classes = 7
    first_head = "head"
    default_drop_rate = 0.3

    def classify(self, model: Any, x: Tensor) -> Tensor:
        """Logits of the classes alone."""
        return model.forward_logits(x)

    def test_num_classes(self, model: Any) -> None:
        assert self.classify(model, self.image()).shape == (2, self.num_classes)
        assert self.classify(self.build(num_classes=3), self.image()).shape == (2, 3)
        bare = self.build(num_classes=0)
        assert self.classify(bare, self.image()).shape == (2, bare.head_hidden_size)
        with pytest.raises(ValueError, match="num_classes=-2"):
            self.build(num_classes=-2, device="meta")
        assert self.build(num_classes=np.int64(3), device="meta").num_classes == 3
        with pytest.raises(TypeError, match="num_classes='7' must be an integer"):
            self.build(num_classes="7", device="meta")

    @pytest.mark.parametrize("size", [(64, 64), (29, 47), (65, 71), (224, 224)])
    def test_features_pool_to_what_forward_uses(self, model: Any, size: tuple[int, int]) -> None:
        x = self.image(1, *size)
        given = []
        hook = model.head.hidden.register_forward_pre_hook(lambda _, args: given.append(args[0]))
        logits = self.classify(model, x)
        hook.remove()
        features = model.forward_features(x)
        cnn_maps, transformer_maps = model.encoder(x)
        _, pyramid = model.encoder.fusion(cnn_maps, transformer_maps)
        parts = [cnn_maps[-1].mean((2, 3)), transformer_maps[-1].mean((2, 3)), pyramid]
        assert tuple(features.shape) == (1, model.num_features, -(-size[0] // 32), -(-size[1] // 32))
        torch.testing.assert_close(features.mean((2, 3)), given[0], rtol=0, atol=0)
        torch.testing.assert_close(torch.cat(parts, 1), given[0], rtol=1e-6, atol=1e-6)
        assert torch.equal(model.forward_head(features), logits)
        pre_logits = model.forward_head(features, pre_logits=True)
        assert pre_logits.shape == (1, model.head_hidden_size)
        assert torch.equal(model.get_classifier()(pre_logits), logits)

    @pytest.mark.parametrize("pool", ["avg", "max", "avgmax", "catavgmax", "fast", "fastcatavgmax"])
    def test_global_pool(self, pool: str) -> None:
        from timm.layers import SelectAdaptivePool2d

        model = self.build(global_pool=pool)
        features = model.forward_features(self.image())
        timms = SelectAdaptivePool2d(pool_type=pool, flatten=True)
        assert model.num_features == features.shape[1] * timms.feat_mult()
        expected = model.head.fc(model.head.hidden(timms(features)))
        torch.testing.assert_close(self.classify(model, self.image()), expected)

    def test_no_pool(self) -> None:
        model = self.build(num_classes=0, global_pool="")
        assert torch.equal(self.classify(model, self.image()), model.forward_features(self.image()))
        assert self.classify(model, self.image()).shape == (2, model.num_features, 2, 3)
        assert not list(model.head.parameters())
        for kwargs in (dict(global_pool=""), dict(global_pool="median")):
            with pytest.raises(ValueError, match="global_pool="):
                self.build(device="meta", **kwargs)

    def test_reset_classifier(self) -> None:
        model = self.build(global_pool="max").train()
        hidden = model.head.hidden[0].weight
        model.reset_classifier(5)
        assert model.num_classes == 5 and model.global_pool == "max"
        assert model.head.hidden[0].weight is hidden
        assert all(module.training for module in model.modules())
        assert self.classify(model.eval(), self.image()).shape == (2, 5)
        model.reset_classifier(0)
        assert self.classify(model, self.image()).shape == (2, model.head_hidden_size)
        model.reset_classifier(3, "catavgmax")
        assert self.classify(model, self.image()).shape == (2, 3)
        model.reset_classifier(0, "")
        assert torch.equal(self.classify(model, self.image()), model.forward_features(self.image()))
        model.reset_classifier(0)
        assert model.global_pool == "" and self.classify(model, self.image()).dim() == 4
        model.reset_classifier(4)
        assert model.global_pool == "avg" and self.classify(model, self.image()).shape == (2, 4)
        with pytest.raises(ValueError, match="global_pool=''"):
            model.reset_classifier(4, "")
        assert model.num_classes == 4 and self.classify(model, self.image()).shape == (2, 4)
        model.to(device="meta", dtype=torch.float64).reset_classifier(2)
        assert all(p.is_meta and p.dtype == torch.float64 for p in model.get_classifier().parameters())

    @pytest.mark.parametrize("index", range(4))
    @pytest.mark.parametrize("prune_head", [True, False])
    def test_prune(self, model: Any, index: int, prune_head: bool) -> None:
        every = model.forward_intermediates(self.image(), intermediates_only=True)
        pruned = copy.deepcopy(model)
        if model.mask_head is not None and not prune_head and index < 3:
            with pytest.raises(ValueError, match=r"prune_head=False: the segmentation head reads every fused map"):
                pruned.prune_intermediate_layers([0, index], prune_head=False)
            return
        assert pruned.prune_intermediate_layers([0, index], prune_head=prune_head) == [0, index]
        if index == 3 and not prune_head:
            assert torch.equal(self.classify(pruned, self.image()), self.classify(model, self.image()))
            return
        assert torch.equal(pruned.forward_features(self.image()), every[index])
        final, maps = pruned.forward_intermediates(self.image(), indices=[0, index])
        assert torch.equal(final, every[index])
        assert torch.equal(maps[0], every[0]) and torch.equal(maps[1], every[index])
        gone = [f"transformer.stages.{index + 1}.", f"fusion.stages.{index + 1}.", f"cnn.layer{index + 2}."]
        gone = [f"encoder.{n}" for n in (*gone, "fusion.pyramid.")] + ["head.hidden."]
        assert not [n for n, _ in pruned.named_parameters() if n.startswith(tuple(gone))]
        if prune_head:
            assert torch.equal(self.classify(pruned, self.image()), every[index])
            pruned.reset_classifier(self.num_classes, "avg")
        channels = every[index].shape[1]
        assert pruned.num_features == pruned.head_hidden_size == channels
        expected = pruned.get_classifier()(every[index].mean((2, 3)))
        torch.testing.assert_close(self.classify(pruned, self.image()), expected)
        self.classify(pruned.train(), self.image()).sum().backward()
        first = {n for n, _ in pruned.named_parameters() if n.startswith("encoder.fusion.stages.0.")}
        unused = {n for n, p in pruned.named_parameters() if p.grad is None and not n.startswith(self.beside_the_image)}
        # The first map was asked for too; a forward pass to F_i leaves it aside.
        assert unused == (first if index else set())
        for other in {1, 2} - {index}:
            with pytest.raises(ValueError, match=r"indices=\[" + str(other)):
                pruned.forward_intermediates(self.image(), indices=[other])
        with pytest.raises(ValueError, match="pruned"):
            mfsf2.save_pretrained(pruned, "never-written")

    @pytest.mark.parametrize("size", [(64, 64), (29, 29)])
    def test_batch_of_one_in_training(self, size: tuple[int, int]) -> None:
        model = self.build().train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(ValueError, match="at least two samples in training mode"):
            self.classify(model, self.image(1, *size))
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert self.classify(model.eval(), self.image(1, *size)).shape == (1, self.num_classes)


class MaskContract(NetworkContract):
    """What networks with a head of masks promise beyond that."""

    mask_argument: str
    """Name of the argument for the channels of the masks."""

    def masks(self, model: Any, x: Tensor) -> Tensor:
        """Logits of the masks alone."""
        return model.forward_masks(x)

    def deep(self, model: Any, x: Tensor) -> list[Tensor]:
        """The logit maps for deep supervision."""
        return model.forward_deep(x).masks

    @pytest.mark.parametrize("size", [(64, 64), (29, 47), (65, 71), (224, 97)])
    @pytest.mark.parametrize("mask_classes", [1, 4])
    def test_masks(self, size: tuple[int, int], mask_classes: int) -> None:
        model = self.build(**{self.mask_argument: mask_classes})
        x = self.image(2, *size)
        masks = self.masks(model, x)
        assert masks.shape == (2, mask_classes, *size)
        deep = self.deep(model, x)
        cnn_maps, transformer_maps = model.encoder(x)
        fused, pyramid = model.encoder.fusion(cnn_maps, transformer_maps, pooled=False)
        assert [y.shape[1] for y in deep] == [mask_classes] * 5
        assert [y.shape[2:] for y in deep] == [f.shape[2:] for f in (fused[3], *reversed(fused))]
        # The same by the design's words, step by step.
        grid = transformer_maps[3].shape[2:]
        r4 = F.interpolate(cnn_maps[3], size=grid, mode="bilinear", align_corners=True)
        logits = model.mask_head.coarse(
            model.mask_head.bottleneck(
                torch.cat([r4, transformer_maps[3], F.interpolate(pyramid, size=grid, mode="bilinear")], 1)
            )
        )
        torch.testing.assert_close(deep[0], logits, rtol=1e-4, atol=1e-4)
        for index, step in enumerate(model.mask_head.steps):
            f = fused[3 - index]
            up = F.interpolate(logits, size=f.shape[2:], mode="bilinear")
            seen = up.sigmoid() if mask_classes == 1 else 1 - up.softmax(1)[:, :1]
            logits = up + step.out(step.conv2(step.conv1(step.axial(f) * (1 - seen))))
            torch.testing.assert_close(deep[index + 1], logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(masks, F.interpolate(logits, size=size, mode="bilinear"), rtol=1e-4, atol=1e-4)

    def test_mask_classes_must_be_positive_integers(self) -> None:
        for value in (0, -1):
            with pytest.raises(ValueError, match=f"{self.mask_argument}={value} must be at least 1"):
                self.build(device="meta", **{self.mask_argument: value})
        assert self.build(device="meta", **{self.mask_argument: np.int64(2)}).mask_head.num_classes == 2
        with pytest.raises(TypeError, match=f"{self.mask_argument}='2' must be an integer"):
            self.build(device="meta", **{self.mask_argument: "2"})

    def test_batch_of_one_trains_masks(self) -> None:
        model = self.build().train()
        assert self.masks(model, self.image(1)).shape == (1, 1, 64, 96)
        with pytest.raises(ValueError, match="at least two samples in training mode"):
            self.masks(model, self.image(1, 32, 32))

    def test_pruned_network_has_no_masks(self, model: Any) -> None:
        pruned = copy.deepcopy(model)
        every = model.forward_intermediates(self.image(), intermediates_only=True)
        assert pruned.prune_intermediate_layers([2]) == [2]
        assert torch.equal(pruned(self.image()), every[2])
        assert not [name for name, _ in pruned.named_parameters() if name.startswith("mask_head.")]
        with pytest.raises(ValueError, match="pruned and has lost its segmentation head"):
            self.deep(pruned, self.image())

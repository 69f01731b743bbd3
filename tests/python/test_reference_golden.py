"""The PyTorch reference reproduces every golden case of DreamZero."""

import re

import golden
import pytest
import torch
from wamcore.reference import normalize, preprocess, schedule
from wamcore.reference.clip import ClipVision
from wamcore.reference.dit import CausalWanModel
from wamcore.reference.dit_layers import rope_angles, video_angles
from wamcore.reference.embodiments import EMBODIMENTS, NEGATIVE_PROMPT
from wamcore.reference.head import ReferenceHead
from wamcore.reference.umt5 import UmT5Encoder, relative_buckets
from wamcore.reference.vae import CausalVae

FORWARD, LOOP = 1e-4, 1e-3  # allowed errors of one forward pass, and behind a denoising loop


@pytest.fixture(autouse=True)
def small_torch():
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


def load(name):
    return {k: torch.from_numpy(v) for k, v in golden.weights(name).items()}


def tensors(case):
    return {k: torch.from_numpy(v) for k, v in case.tensors().items()}


def build_dit(model_type):
    name = f"dit_{model_type}_weights"
    model = CausalWanModel(golden.case(name).config)
    model.load_state_dict(load(name))
    return model


def build_vae(tag):
    model = CausalVae(golden.case(f"{tag}_enc_weights").config)
    model.load_state_dict({**load(f"{tag}_enc_weights"), **load(f"{tag}_dec_weights")})
    return model


def build_t5():
    model = UmT5Encoder(golden.case("t5_weights").config)
    model.load_state_dict(load("t5_weights"))
    return model


def build_clip():
    model = ClipVision(golden.case("clip_weights").config)
    model.load_state_dict(load("clip_weights"))
    return model


def check_taps(taps, wanted, prefix):
    for key, want in wanted.items():
        if key.startswith(prefix):
            golden.check(taps[key[len(prefix) :]], want, FORWARD, key)


def check_weights(case):
    """Loading is strict, so building the model checks names and shapes."""
    kind = case.name.split("_")[0]
    build = {"dit": lambda: build_dit(case.config["model_type"]), "t5": build_t5, "clip": build_clip}
    build.get(kind, lambda: build_vae(kind))()


def check_vae(case):
    d, vae, taps = tensors(case), build_vae(case.name.split("_")[0]), {}
    golden.check(vae.latents_mean, d["mean"], 1e-6, "mean")
    golden.check(vae.latents_std, d["std"], 1e-6, "std")
    video = d["video"]
    golden.check(vae.encode(video, taps), d["latent"], FORWARD, "latent")
    golden.check(vae.encode(video[:, :, :1]), d["latent_single_frame"], FORWARD, "latent of one frame")
    golden.check(vae.encode_frame(video[:, :, 0]), d["latent_single_frame"][:, :, 0], FORWARD, "encode_frame")
    gray = torch.cat([video[:, :, :1], torch.zeros_like(video[:, :, 1:])], 2)
    golden.check(vae.encode(gray), d["latent_firstframe_plus_8_zero_frames"], FORWARD, "latent of frame and zeros")
    check_taps(taps, {k: v for k, v in d.items() if k.startswith("encoder_out")}, "")
    raw = vae.decode(d["latent"], clamp=False)
    golden.check(raw, d["decoded_raw"], FORWARD, "decoded")
    golden.check(vae.decode(d["latent"]), d["decoded_clamped"], FORWARD, "decoded and clamped")
    golden.check(vae.decode_frame(d["latent"][:, :, 0]), d["decoded_raw"][:, :, 0], FORWARD, "decode_frame")


def check_vae_taps(case):
    tag, taps = case.name.split("_")[0], {}
    vae, d = build_vae(tag), load(f"{tag}_forward")
    vae.encode(d["video"], taps)
    vae.decode(d["latent"], taps=taps)
    check_taps(taps, tensors(case), "")


def check_t5(case):
    d, t5, taps = tensors(case), build_t5(), {}
    golden.check(t5(d["ids"], d["mask"], taps), d["out"], FORWARD, "out")
    prompt = t5.prompt_embedding(d["ids"], d["mask"])
    golden.check(prompt, d["out_masked_as_prompt_emb"], FORWARD, "prompt embedding")
    assert torch.equal(relative_buckets(torch.arange(-200, 201)), d["relpos_arange_m200_200_bucket"].long())
    check_taps(taps, d, "tap.")


def check_clip(case):
    d, taps = tensors(case), {}
    golden.check(build_clip()(d["image"][:, 0], taps), d["out"], FORWARD, "out")
    taps["preprocessed_crop"] = taps["pixels"][:, :, ::8, ::8]
    check_taps(taps, d, "tap.")


def check_dit_block(case):
    d, taps, cfg = tensors(case), {}, case.config
    block = build_dit(cfg["model_type"]).blocks[0]
    head_dim = cfg["dim"] // cfg["num_heads"]
    cos_sin = [d[f"rope_{part}_cos_sin"].reshape(-1, head_dim // 2, 2) for part in ("video", "action", "state")]
    angles = torch.cat([torch.atan2(t[..., 1].double(), t[..., 0].double()) for t in cos_sin])
    n, tokens = len(cos_sin[0]), cfg["frame_seqlen"]
    image, text = d["context"][:, : cfg["clip_tokens"]], d["context"][:, cfg["clip_tokens"] :]
    attention = {"cache": tuple(d["kv_cache_in"]), "num_video": n, "window": cfg["local_attn_size"] * tokens}
    y, kv = block(d["x"], d["e0"], text, image, {"angles": angles, **attention}, taps)
    golden.check(y, d["y"], FORWARD, "y")
    golden.check(torch.stack(kv), d["kv_cache_out"], FORWARD, "kv")
    check_taps(taps, d, "tap.")
    y, kv = block(d["x"][:, :n], d["e0"][:, :n], text, image, {"angles": angles[:n], **attention})
    golden.check(y, d["y_no_register"], FORWARD, "y without registers")
    golden.check(torch.stack(kv), d["kv_cache_out_no_register"], FORWARD, "kv without registers")
    # the tables themselves: block 1, first frame 3; the width of the grid is not in the config
    grids = [video_angles(3, n // tokens, tokens // w, w, head_dim) for w in range(1, tokens + 1) if tokens % w == 0]
    assert min(golden.error(torch.stack([g.cos(), g.sin()], -1), cos_sin[0]) for g in grids) < 1e-6
    for table in cos_sin[1:]:
        a = rope_angles(torch.arange(len(table), 2 * len(table)), head_dim)
        golden.check(torch.stack([a.cos(), a.sin()], -1), table, 1e-6, "register angles")


def check_dit_sequence(case):
    """Remember a frame, then again and again denoise a block and remember it."""
    d, cfg, cache = tensors(case), case.config, None
    model = CausalWanModel(cfg)
    model.load_state_dict(load(f"dit_{cfg['model_type']}_weights"))

    def forward(step, start, *registers):
        taps, part = {}, {k[len(step) + 1 :]: v for k, v in d.items() if k.startswith(step + ".")}
        inputs = part["x"], part["timestep"], d["context_text_emb"], d["clip_feature"], cache, start, part.get("y")
        video, action, kv = model(*inputs, *(part[r] for r in registers), taps=taps)
        golden.check(video, part["video_pred"], FORWARD, f"{step} video")
        if registers:
            golden.check(action, part["action_pred"], FORWARD, f"{step} action")
        else:
            taps |= {f"layer{i}": torch.stack(pair) for i, pair in enumerate(kv)}
        check_taps(taps, part, "tap.")
        check_taps(taps, part, "kv_after.")
        return kv

    cache = forward("prefill0", 0)
    for chunk in range(cfg["num_chunks"]):
        start = 1 + chunk * cfg["num_frame_per_block"]
        forward(f"denoise{chunk}", start, "action", "timestep_action", "state")
        if f"prefill{chunk + 1}.x" in d:
            cache = forward(f"prefill{chunk + 1}", start)


def check_dit_train(case):
    d, model = tensors(case), build_dit(case.config["model_type"])
    inputs = d["clean_x"], d["noisy_x"], d["timestep"], d["context_text_emb"], d["clip_feature"]
    video, action = model.forward_train(*inputs, d["action"], d["timestep_action"], d["state"], d.get("y"))
    golden.check(video, d["video_pred"], FORWARD, "video")
    golden.check(action, d["action_pred"], FORWARD, "action")


def check_schedulers(case):
    d = tensors(case)
    for key, want in d.items():
        if m := re.fullmatch(r"unipc(?:_decoupled)?\.n(\d+)(?:\.final([\d.]+))?\.(sigmas|timesteps)", key):
            sigmas = schedule.unipc_sigmas(int(m[1]))
            sigmas = schedule.decoupled(sigmas, float(m[2])) if m[2] else sigmas
            if m[3] == "timesteps":
                assert torch.equal(schedule.timesteps(sigmas), want), key
            else:
                golden.check(sigmas, want, 1e-6, key)
        elif m := re.fullmatch(r"flowmatch_euler\.n(\d+)\.sigmas", key):
            golden.check(schedule.flow_match_sigmas(int(m[1]))[:-1], want, 1e-6, key)
        elif key.startswith("flowmatch_train."):
            table = schedule.flow_match_sigmas(1000)[:-1]
            mine = {"sigmas": table, "timesteps": 1000 * table, "weights": schedule.training_weights()}
            golden.check(mine[key.split(".")[1]], want, 1e-5, key)
        elif m := re.fullmatch(r"(step\.n(\d+)(?:\.dec([\d.]+))?)\.init", key):
            sigmas = schedule.unipc_sigmas(int(m[2]))
            solver, x = schedule.UniPC(schedule.decoupled(sigmas, float(m[3])) if m[3] else sigmas), want
            for i in range(int(m[2])):
                x = solver.step(i, x, d[f"{m[1]}.model_output{i}"])
                golden.check(x, d[f"{m[1]}.sample{i + 1}"], LOOP, f"{m[1]} step {i}")
        else:
            assert key.startswith("step."), f"unknown table {key}"


def check_head(case):
    d, cfg = tensors(case), case.config
    tag = {16: "vae21", 48: "vae22"}[cfg["dit"]["out_dim"]]
    dit = CausalWanModel(cfg["dit"])
    dit.load_state_dict(load(f"dit_{cfg['dit']['model_type']}_weights"))
    head = ReferenceHead(dit, build_vae(tag), build_t5(), build_clip(), cfg)
    forwards = []
    head.dit.register_forward_hook(lambda module, args, out: forwards.append(len(args[0])))
    for number, log in enumerate(cfg["log"]["calls"]):
        call = {k.removeprefix(f"call{number}."): v for k, v in d.items() if k.startswith(f"call{number}.")}
        text, negative = ((d[f"text_ids.{who}"], d[f"text_mask.{who}"]) for who in (log["lang"], "negative"))
        before, trace = head.start, {}
        forwards.clear()
        noise = d["noise_obs"], d["noise_action"]
        out = head.infer(call["images"][0], text, negative, call["state"], noise, call.get("latent_video"), trace)
        mine = {
            "start_frame_before": before,
            "start_frame_after": head.start,
            "reset": out.reset,
            "prefill_start_frames": [out.prefill_frame],
            "prefill_frames": [trace["prefill0.latents"].shape[2]],
            "denoise_start_frame": out.denoise_frame,
            "steps_run": out.steps_run,
            "n_dit_forwards_incl_cfg": sum(forwards),
            "kv_tokens": head.cache[-1][0].shape[1],
        }
        assert mine == {k: log[k] for k in mine}, f"call {number}"
        check_head_call(call, out, head, trace, f"call{number}.")


def check_head_call(call, out, head, trace, name):
    for which, embedding in zip(("pos", "neg"), trace["prompt_embeddings"], strict=True):
        golden.check(embedding, call[f"prompt_emb_{which}"], FORWARD, f"{name}prompt_emb_{which}")
    if out.reset:
        golden.check(trace["clip_feature"][..., :8], call["clip_feature_head32"], FORWARD, f"{name}clip_feature")
        golden.check(trace["prefill0.latents"], call["first_latent"], FORWARD, f"{name}first_latent")
        if "ys" in trace:
            golden.check(trace["ys"], call["ys"], FORWARD, f"{name}ys")
    last = torch.stack(head.cache[-1])
    for branch, which in enumerate(("pos", "neg")):
        mine, want = last[:, branch : branch + 1], call[f"kv_{which}.last_layer"]
        golden.check(mine, want, FORWARD, f"{name}kv_{which}")
    for key, want in call.items():
        if key.startswith("timesteps_"):
            assert torch.equal(trace[key], want.long()), f"{name}{key}"
        elif key.startswith("step"):
            golden.check(trace[key], want, FORWARD if key.startswith("step0.") else LOOP, name + key)
        elif key == "prefill0.latents" or (key == "denoise0.y" and trace[key] is not None):
            golden.check(trace[key], want, FORWARD, name + key)
    steps = range(len(call["timesteps_video"]))
    videos = torch.stack([trace[f"sample{i}"][0].transpose(1, 2) for i in steps], 1)[0]
    actions = torch.cat([trace[f"sample{i}"][1] for i in steps])
    golden.check(videos, call["video_samples_after_step"], LOOP, f"{name}video samples")
    golden.check(actions, call["action_samples_after_step"], LOOP, f"{name}action samples")
    golden.check(out.video, call["video_pred"], LOOP, f"{name}video")
    golden.check(out.action, call["action_pred"], LOOP, f"{name}action")


def statistics_of(case):
    """The metadata file of the folder of the case, or else of any folder."""
    beside = case.path.with_name("transforms_metadata.json")
    files = [beside, *(f / "transforms_metadata.json" for f in golden.folders())]
    found = [golden.Case(f, {}).json() for f in files if f.exists()]
    known = [m[case.name]["statistics"] for m in found if case.name in m]
    if not known:
        golden.skip(f"no metadata for {case.name}", case)
    return known[0]


def check_preprocess(case):
    d, cfg, stats = tensors(case), case.config, statistics_of(case)
    robot = EMBODIMENTS[cfg["embodiment"]]
    views = [preprocess.view_pixels(d[f"in.video.{v}"], tuple(cfg["view_hw"])) for v in robot.views]
    images = preprocess.compose(views, robot.layout)
    assert torch.equal(images[None], d["out.images"]), "the pictures are not the same to the bit"
    states = {k: d[f"in.state.{k}"] for k in robot.state_keys}
    width = d["out.state"].shape[-1]
    mine = preprocess.state_vector(states, stats["state"], robot.state_keys, width)
    golden.check(mine[None], d["out.state"], FORWARD, "state")
    used = sum(s.shape[-1] for s in states.values())
    assert d["out.state_mask"].bool().flatten().tolist() == [i < used for i in range(width)]
    for key, want in d.items():
        if m := re.fullmatch(r"out\.head_resized_(\d+)x(\d+)_crop", key):
            small = preprocess.model_pixels(images, (int(m[1]), int(m[2])))[None, :, 0, ::4, ::4]
            golden.check(small.reshape(want.shape), want, FORWARD, key)
    for given, name in (((), "unnormalized_relative"), (cfg["relative_keys"], "absolute")):
        keys = robot.action_keys
        out = preprocess.action_targets(d["act.normalized"], states, stats["action"], keys, given)
        for key in keys:
            golden.check(out[key], d[f"act.{name}.action.{key}"], FORWARD, f"{name} {key}")
    instruction = "Put the red cube &amp; the can in the bowl"  # of all cases
    assert cfg["prompt_strings"] == [[NEGATIVE_PROMPT], [preprocess.prompt(instruction, cfg["embodiment"])]]


def check_normalizer(case):
    d = tensors(case)
    stats = {k.removeprefix("stats."): v for k, v in d.items() if k.startswith("stats.")}
    for key, want in d.items():
        mode, _, way = key.partition(".")
        if way in ("forward", "inverse"):
            function = normalize.normalize if way == "forward" else normalize.denormalize
            golden.check(function(d["x"], stats, mode), want, FORWARD, key)


def check_prompts(case):
    for key, want in case.json().items():
        tag, _, instruction = key.partition("|")
        mine = NEGATIVE_PROMPT if key == "__negative__" else preprocess.prompt(instruction, tag)
        assert mine == want, key


def check_metadata(case):
    for entry in case.json().values():
        robot, stats = EMBODIMENTS[entry["embodiment_tag"]], entry["statistics"]
        assert set(robot.state_keys) == set(stats["state"]) and set(robot.action_keys) == set(stats["action"])


@golden.parametrize()
def test_golden(case):
    golden.need(case)
    if case.kind == "unknown":
        golden.skip(f"{case.name}: the reference has nothing of this kind", case)
    globals()[f"check_{case.kind}"](case)

"""The workspace of convex regions: kinematics and distances beside plain definitions, and a run that keeps to it."""

import re

import numpy as np
import pytest
import wamcore as wam
from wamcore.robot.description import matrix_of
from wamcore.robot.urdf import quaternion

TURNED = {"frames": [{"motion": "hinge", "joint": 0, "axis": [0, 0, 1]}], "spheres": [{"frame": 0, "radius": 0.1}]}


def profile(tmp_path, root, workspace: str) -> wam.RobotProfile:
    """The example's arm in another workspace, lengths in mm."""
    text = (root / "examples" / "robot.toml").read_text()
    text = re.sub(r"\[workspace\].*?(?=\[driver\])", workspace, text, flags=re.S)
    (tmp_path / "robot.toml").write_text(text)
    (tmp_path / "arm.urdf").write_bytes((root / "examples" / "arm.urdf").read_bytes())
    return wam.read_robot(tmp_path / "robot.toml")


def test_spheres_are_where_the_description_has_them(tmp_path, root):
    rng = np.random.default_rng()
    spheres = [(link, rng.uniform(-100, 100, 3)) for link in ("turret", "upper", "fore", "hand", "tip")]
    rows = ", ".join(f'{{link = "{n}", at = {at.tolist()}, radius = 1}}' for n, at in spheres)
    p = profile(
        tmp_path,
        root,
        f'[workspace]\nspheres = [{rows}]\nkeep_in = [{{shape = "sphere", centre = [0, 0, 0], radius = 9000}}]\n',
    )
    q = rng.uniform(p.limits.position_min, p.limits.position_max)
    poses = p.description.poses(dict(zip(p.limits.names, q, strict=True)))
    wanted = [poses[n][:3, :3] @ at / 1000 + poses[n][:3, 3] for n, at in spheres]
    np.testing.assert_allclose(p.workspace.centres(q), wanted, atol=1e-12)
    reach = np.linalg.norm(wanted, axis=1).max()
    np.testing.assert_allclose(p.workspace.clearance(q), 9 - reach - 0.001 - 0.01, atol=1e-12)


def depth(shape: str, size: np.ndarray, p: np.ndarray) -> float:
    """How far p lies inside a shape, by the nearest of its surfaces; negative outside, where only the sign counts."""
    sides = {
        "half_space": lambda: [p[2]],
        "box": lambda: size - np.abs(p),
        "cylinder": lambda: [size[0] - np.hypot(p[0], p[1]), size[1] - abs(p[2])],
        "sphere": lambda: [size[0] - np.linalg.norm(p)],
    }
    return float(np.min(sides[shape]()))


@pytest.mark.parametrize("shape", ["half_space", "box", "cylinder", "sphere"])
def test_distances(shape):
    rng = np.random.default_rng()
    size = rng.uniform(0.3, 1, {"half_space": 0, "box": 3, "cylinder": 2, "sphere": 1}[shape])
    for _ in range(12):
        centre, rotation, at = rng.normal(size=3), quaternion(*rng.uniform(-3, 3, 3)), rng.normal(size=3)
        region = {"shape": shape, "centre": centre, "rotation": rotation, "size": size.tolist()}
        body = {"frames": [{}], "spheres": [{"frame": 0, "centre": at, "radius": 0.05}], "margin": 0.02}
        inside = wam.Workspace(1, regions=[region], **body)
        outside = wam.Workspace(1, regions=[region | {"keep_out": True}], **body)
        local = matrix_of(rotation).T @ (at - centre)
        deep = depth(shape, size, local)
        assert inside.allows([0.0]) == (deep >= 0.07)
        if deep > 0:  # inside, both are the distance to the surface
            np.testing.assert_allclose(inside.clearance([0.0]), deep - 0.07, atol=1e-12)
            np.testing.assert_allclose(outside.clearance([0.0]), -deep - 0.07, atol=1e-12)
        else:  # outside, against points that cover the surface and what it encloses
            points = rng.uniform(-1, 1, (600, 3)) * (np.abs(local).max() + 1)
            filled = points[[depth(shape, size, x) >= 0 for x in points]]
            if len(filled):
                nearest = np.linalg.norm(filled - local, axis=1).min()
                assert outside.clearance([0.0]) + 0.07 <= nearest + 1e-12


def test_regions_and_spheres_all_count():
    regions = [
        {"shape": "half_space"},
        {"shape": "sphere", "size": [1.0]},
        {"shape": "box", "size": [0.1] * 3, "keep_out": True, "centre": [0.5, 0, 0.5]},
    ]
    spheres = [{"frame": 0, "centre": [0.5, 0, 0.5], "radius": 0.05}]
    w = wam.Workspace(1, TURNED["frames"], spheres, regions, margin=0.0)
    assert not w.allows([0.0])  # in the box
    assert w.allows([1.0]) and w.allows([-1.0])
    assert not wam.Workspace(1, TURNED["frames"], spheres + [{"frame": 0, "radius": 0.2}], regions).allows([1.0])
    assert not w.allows([np.nan]) and not w.allows([np.inf]) and not w.allows([0.0, 0.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": [{"parent": 0}]}, "frame 0 wants an earlier frame"),
        ({"frames": [{"joint": 1}]}, "joint below dof"),
        ({"frames": [{"axis": [0, 0, 2]}]}, "unit axis"),
        ({"frames": [{"motion": "ball"}]}, "motion wants"),
        ({"frames": [{"parent": i - 1} for i in range(129)]}, "at most 128 frames"),
        ({"spheres": []}, "at least one sphere"),
        ({"spheres": [{"frame": 3}]}, "fixed to no frame"),
        ({"spheres": [{"frame": 0, "radius": -1}]}, "finite numbers"),
        ({"regions": [{"shape": "cone"}]}, "got 'cone'"),
        ({"regions": [{"shape": "box", "size": [1, 1]}]}, "positive sizes"),
        ({"regions": [{"shape": "box", "size": [1, 1, 1], "colour": 3}]}, "unknown option 'colour'"),
        ({"margin": -1.0}, "margin"),
        ({"apart": [(0, 0)]}, "two different spheres"),
        ({"apart": [(0, 1)]}, "two different spheres"),
        ({"spheres": [{"frame": 0}] * 257}, "at most 256 spheres"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    good = {**TURNED, "regions": [{"shape": "half_space"}]}
    wam.Workspace(1, **good)
    with pytest.raises(wam.ConfigError, match=message):
        wam.Workspace(1, **{**good, **change})


@pytest.mark.parametrize(
    ("workspace", "message"),
    [
        ('[workspace]\nspheres = [{link = "toe", radius = 3}]', r"workspace.spheres\[0\].link: wanted one of \['base'"),
        ('[workspace]\nspheres = [{link = "tip"}]', r"workspace.spheres\[0\].radius: wanted a positive number"),
        ('[workspace]\nspheres = [{link = "tip", radius = 3}]', "workspace: KinematicWorkspace: wants at least one"),
        ('[workspace]\nkeep_in = [{shape = "cone"}]', r"workspace.keep_in\[0\].shape: wanted .*got 'cone'"),
        ('[workspace]\nkeep_in = [{shape = "half_space", point = [0, 0, 0], normal = [0, 0, 0]}]', "a direction"),
        (
            '[workspace]\nkeep_in = [{shape = "sphere", centre = [0, 0, 0], radius = 1, rpy = [1, 2, 3]}]',
            "rpy: wanted no",
        ),
        (
            '[workspace]\nspheres = [{link = "tip", radius = 1}]\napart = [["tip", "base"]]',
            "apart: wanted pairs .*'base'",
        ),
        ("[workspace]\nwall = 3", "workspace.wall: wanted no such key"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, root, workspace, message):
    with pytest.raises(wam.ConfigError, match=message):
        profile(tmp_path, root, workspace + "\n")


def test_links_of_a_pair_stay_apart(tmp_path, root):
    rows = ", ".join(
        f'{{link = "{n}", radius = {r}}}' for n, r in (("tip", 20), ("base", 50), ("hand", 30), ("tip", 10))
    )
    p = profile(tmp_path, root, f'[workspace]\nmargin = 5\nspheres = [{rows}]\napart = [["tip", "base"]]\n')
    for _ in range(20):
        q = np.random.default_rng().uniform(p.limits.position_min, p.limits.position_max)
        tip, base, _, _ = p.workspace.centres(q)
        np.testing.assert_allclose(p.workspace.clearance(q), np.linalg.norm(tip - base) - 0.075, atol=1e-12)
    assert np.isnan(p.workspace.clearance(q * np.nan)) and not p.workspace.allows(q * np.nan)


class Down(wam.Policy):
    """Lets the arm sink to the table and through it."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def infer(self, obs):
        self.calls += 1
        q = np.tile(obs.state, (16, 1))
        q[:, 1] -= 0.06 * np.arange(16)
        q[:, 1] = q[:, 1].clip(-0.5)
        return wam.ActionChunk(q, 0.05, obs, sequence=self.calls)

    def dt(self):
        return 0.05

    def horizon(self):
        return 16

    def dof(self):
        return 4


def test_the_arm_stops_before_the_table(root):
    p = wam.read_robot(root / "examples" / "robot.toml")
    start = [0.0, 1.2, -1.6, -1.2]

    def lowest(**options):
        clock = wam.ManualClock()
        arm = wam.MockHal(clock, joints=p.limits.names, start=start)
        with wam.VirtualRunner(Down(), arm, p.limits, clock=clock, record=60.0, **options) as run:
            run.run(4.0)
            stats, commands = run.stats, run.record()["command"]
        return stats, min(p.workspace.clearance(q) for q in commands)

    stats, least = lowest(**p.runner_options())
    assert stats["safety"]["workspace"] > 0 and least >= -1e-3  # m: joints brake each in its own time
    assert lowest()[1] < -0.05  # without it the arm is in the table

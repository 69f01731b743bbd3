"""URDF and MJCF files as wamcore reads them, beside MuJoCo and yourdfpy: the same joints, limits and poses."""

import importlib.util

import numpy as np
import pytest
import wamcore as wam
from wamcore.robot import read_description

needs_mujoco = pytest.mark.skipif(importlib.util.find_spec("mujoco") is None, reason="mujoco is not installed")
needs_yourdfpy = pytest.mark.skipif(importlib.util.find_spec("yourdfpy") is None, reason="yourdfpy is not installed")
INERTIA = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'


def three(values) -> str:
    return " ".join(f"{v:.17g}" for v in values)


def random_urdf(rng: np.random.Generator, joints: int = 9) -> str:
    """A tree of links with every kind of joint; one joint follows another."""
    parts = [f'<link name="l0">{INERTIA}</link>']
    for i in range(joints):
        kind = ["revolute", "prismatic", "continuous", "fixed"][i] if i < 4 else rng.choice(["revolute", "prismatic"])
        low, high = np.sort(rng.uniform(-2, 2, 2))
        limit = f'lower="{low!r}" upper="{high!r}"' if kind != "continuous" else ""
        extra = "" if kind == "fixed" else f'<limit {limit} velocity="{rng.uniform(0.1, 5)!r}" effort="1"/>'
        if i == joints - 1:
            extra += f'<mimic joint="j0" multiplier="{rng.uniform(-2, 2)!r}" offset="{rng.uniform(-1, 1)!r}"/>'
        if kind != "fixed":
            axis = rng.normal(size=3)
            extra += f'<axis xyz="{three(axis / np.linalg.norm(axis))}"/>'
        parent = 0 if i == 0 else rng.integers(max(0, i - 2), i + 1)
        parts.append(
            f'<joint name="j{i}" type="{kind}"><parent link="l{parent}"/><child link="l{i + 1}"/>'
            f'<origin xyz="{three(rng.normal(size=3))}" rpy="{three(rng.uniform(-3, 3, 3))}"/>{extra}</joint>'
            f'<link name="l{i + 1}">{INERTIA}</link>'
        )
    return f'<robot name="r">{"".join(parts)}</robot>'.replace("np.float64(", "").replace(')"', '"')


def random_positions(rng, description) -> dict[str, float]:
    """Joints within their limits, those that follow others left out."""
    return {
        j.name: float(rng.uniform(max(j.position_min, -3), min(j.position_max, 3)))
        for j in description.joints.values()
        if j.follows is None
    }


@needs_yourdfpy
def test_urdf_is_what_yourdfpy_reads(tmp_path):
    import yourdfpy

    rng, path = np.random.default_rng(), tmp_path / "r.urdf"
    for _ in range(3):
        path.write_text(random_urdf(rng))
        ours, theirs = read_description(path), yourdfpy.URDF.load(str(path), load_meshes=False, build_scene_graph=True)
        moving = {n: j for n, j in theirs.joint_map.items() if j.type != "fixed"}
        assert set(ours.joints) == set(moving) and set(ours.links) == set(theirs.link_map)
        for name, j in moving.items():
            mine = ours.joints[name]
            assert mine.kind == ("slide" if j.type == "prismatic" else "hinge") and mine.velocity == j.limit.velocity
            assert mine.follows == (j.mimic.joint if j.mimic else None)
            if j.type != "continuous":
                assert (mine.position_min, mine.position_max) == (j.limit.lower, j.limit.upper)
        q = random_positions(rng, ours)
        theirs.update_cfg(q)
        for link, pose in ours.poses(q).items():
            np.testing.assert_allclose(pose, theirs.get_transform(link, "l0"), atol=1e-9)


@needs_mujoco
def test_urdf_is_what_mujoco_reads(tmp_path):
    import mujoco

    rng, path = np.random.default_rng(), tmp_path / "r.urdf"
    text = random_urdf(rng)
    path.write_text(text)
    ours = read_description(path)
    static = '<mujoco><compiler fusestatic="false" strippath="false"/></mujoco></robot>'
    model = mujoco.MjModel.from_xml_string(text.replace("</robot>", static))
    data = mujoco.MjData(model)
    q = random_positions(rng, ours)
    for name, j in ours.joints.items():
        theirs = model.joint(name)
        if np.isfinite(j.position_min):
            assert theirs.limited[0]
            np.testing.assert_allclose(theirs.range, [j.position_min, j.position_max])
        frame = next(f for f in ours.frames if f.joint == (j.follows or name) and f.name == f"l{int(name[1:]) + 1}")
        data.qpos[theirs.qposadr[0]] = frame.scale * q[j.follows or name] + frame.offset
    mujoco.mj_kinematics(model, data)
    for link, pose in ours.poses(q).items():
        if link != "l0":  # MuJoCo's world
            np.testing.assert_allclose(pose[:3, 3], data.body(link).xpos, atol=1e-9)
            np.testing.assert_allclose(pose[:3, :3], data.body(link).xmat.reshape(3, 3), atol=1e-9)


MJCF = """<mujoco><compiler angle="degree" autolimits="true"/>
<default><joint range="-60 60"/></default>
<worldbody><body name="a" pos="0.1 0.2 0.3" euler="10 20 30">
  <joint name="x" type="slide" axis="1 0 0" range="-0.2 0.3" ref="0.05"/><joint name="y" axis="0 1 1" pos="0.1 0 0.2"/>
  <geom size="0.1"/>
  <body name="b" pos="0 0 0.4"><joint name="z" axis="1 2 3" pos="0 0.3 0" ref="25"/><geom size="0.1"/>
    <body name="c" pos="0.1 0 0" quat="1 1 0 0"><geom size="0.1"/></body></body>
</body>
<body name="ball"><freejoint/><geom size="0.1"/><body name="on_ball"><joint name="w"/><geom size="0.1"/></body></body>
</worldbody></mujoco>"""


@needs_mujoco
def test_mjcf_is_what_mujoco_simulates(tmp_path):
    import mujoco
    from wamcore.sim import scene

    rng, path = np.random.default_rng(), tmp_path / "x.xml"
    for text in (scene.mjcf(), MJCF):
        path.write_text(text)
        ours, model = read_description(path), mujoco.MjModel.from_xml_path(str(path))
        data = mujoco.MjData(model)
        q = random_positions(rng, ours)
        for name, j in ours.joints.items():
            theirs = model.joint(name)
            assert (j.kind == "slide") == (theirs.type[0] == mujoco.mjtJoint.mjJNT_SLIDE)
            assert np.isfinite(j.position_min) == bool(theirs.limited[0])
            if theirs.limited[0]:
                np.testing.assert_array_equal(theirs.range, [j.position_min, j.position_max])
            data.qpos[theirs.qposadr[0]] = q[name]
        mujoco.mj_kinematics(model, data)
        for link, pose in ours.poses(q).items():
            np.testing.assert_allclose(pose[:3, 3], data.body(link).xpos, atol=1e-9)
            np.testing.assert_allclose(pose[:3, :3], data.body(link).xmat.reshape(3, 3), atol=1e-9)
        assert len(ours.links) > 2 and "on_ball" not in ours.links  # what hangs on a free joint is no robot


@needs_mujoco
def test_the_urdf_of_the_example_is_the_arm_of_the_scene(root, tmp_path):
    from wamcore.sim import scene

    (tmp_path / "scene.xml").write_text(scene.mjcf())
    urdf, mjcf = read_description(root / "examples" / "arm.urdf"), read_description(tmp_path / "scene.xml")
    assert list(urdf.joints) == list(mjcf.joints) == list(scene.JOINTS)
    for name, v in zip(scene.JOINTS, scene.VELOCITY_MAX, strict=True):
        assert (urdf.joints[name].position_min, urdf.joints[name].position_max, urdf.joints[name].velocity) == (
            mjcf.joints[name].position_min, mjcf.joints[name].position_max, v,
        )  # fmt: skip
    q = random_positions(np.random.default_rng(), urdf)
    for link in ("upper", "fore", "hand"):
        np.testing.assert_allclose(urdf.poses(q)[link], mjcf.poses(q)[link], atol=1e-12)


@needs_mujoco
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<mujoco><a/></mujoco>", "Schema violation"),
        (MJCF.replace('joint name="z"', "joint"), "has no name"),
        ("<sdf/>", "got <sdf>"),
    ],
)
def test_what_is_no_description_is_refused(tmp_path, text, message):
    path = tmp_path / "x.xml"
    path.write_text(text)
    with pytest.raises(wam.ConfigError, match=message):
        read_description(path)

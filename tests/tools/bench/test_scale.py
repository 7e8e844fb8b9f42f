"""What the service is given to serve for each number of replicas, and what is printed of it."""

from serve_app.settings import PROJECT_ROOT, read_config, settings_of
from serve_app.tools.bench.report import open_console
from serve_app.tools.bench.scale import ONE_HOP, SPLIT, Step, parse, serve_paced, show


def test_the_model_has_so_many_replicas_in_the_routers_or_behind_one():
    for where, hosts, expected in ((ONE_HOP, "paced", {"router": 3}), (SPLIT, None, {"router": 1, "paced": 3})):
        config = read_config(PROJECT_ROOT / "configs" / "serve.yaml")
        serve_paced(config, 3, where)
        settings = settings_of(config)
        assert [one.name for one in settings.triton] == ["paced"]
        assert (settings.router.hosts, settings.llms, settings.baseline) == (hosts, (), None)
        (application,) = config["applications"]
        assert {one["name"]: one["num_replicas"] for one in application["deployments"]} == expected
        assert {one["ray_actor_options"]["num_cpus"] for one in application["deployments"]} == {0.05}
        assert not any("autoscaling_config" in one for one in application["deployments"])


def test_the_table_gives_the_share_of_what_the_model_alone_would_do(capsys):
    steps = [Step(ONE_HOP, 1, 49.0, 90.4, ()), Step(SPLIT, 4, 100.0, 9.0, ("3 × 503",))]
    show(steps, parse([]).work_ms, open_console())
    printed = capsys.readouterr().out
    for cells in (("in routers", "1", "49.0", "0.98", "90"), ("behind a router", "4", "100.0", "0.50", "9")):
        assert any(all(cell in line for cell in cells) for line in printed.splitlines()), printed
    assert "4 behind a router: 3 × 503" in printed

"""The playground's chat, in a browser, with the demo's trained answers."""

import re


def ask(page, question):
    page.fill("#question textarea", question)
    page.click("#send")


def figure(page, name):
    """A number under the conversation, by what it means."""
    found = re.search(rf"([\d.]+)\s+{name}$", page.inner_text("#speed"), re.MULTILINE)
    return float(found[1])


def test_a_visitor_reads_the_trained_answer_and_its_speed(browse, service, pairs, picture_for_readme):
    pair = next(pair for pair in pairs if pair.question == "What is serve_app?")
    page = browse(service.url)
    page.get_by_role("tab", name="Chat").click()
    page.wait_for_function("document.querySelector('#model input').value == 'demo-llm'")
    ask(page, pair.question)
    page.get_by_text(pair.answer, exact=True).wait_for()
    page.wait_for_function("/[1-9][0-9.]*\\s+tokens\\/s/.test(document.querySelector('#speed').innerText)")
    assert figure(page, "tokens") > 10
    assert 0 < figure(page, "ms to the first token") < 30_000
    assert 0 < figure(page, "s in total") < 60
    picture_for_readme(page, "chat")


def test_a_visitor_can_ask_every_model_and_reads_why_one_does_not_answer(browse, service, api):
    page = browse(service.url)
    page.get_by_role("tab", name="Chat").click()
    page.wait_for_function("document.querySelector('#model input').value == 'demo-llm'")
    page.click("#model input")
    page.get_by_role("option").first.wait_for()
    offered = {text.strip("✓ \n") for text in page.get_by_role("option").all_inner_texts()}
    assert offered == {model.id for model in api.models.list()}
    page.get_by_role("option", name="nowhere").click()
    ask(page, "Is anybody there?")
    page.wait_for_selector("#speed .failure")
    assert "busy or not ready" in page.inner_text("#speed")

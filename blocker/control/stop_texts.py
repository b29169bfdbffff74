"""What the stop page says of itself, language by language. Another language is one more entry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Texts:
    """The page's own words in one language.

    Attributes:
        name: The language, in itself.
        title: Title and first heading.
        stopped: What happened.
        by: Heading: who stopped it.
        operator: Who stopped it, where the operator does not name itself.
        authority: Heading: who keeps the list.
        why: Heading: why.
        reason: Why, where the operator says nothing.
        law: Heading: under which law.
        complaint: Heading: how to complain.
        help: Heading: where to get help.
        privacy: What is not recorded.
    """

    name: str
    title: str
    stopped: str
    by: str
    operator: str
    authority: str
    why: str
    reason: str
    law: str
    complaint: str
    help: str
    privacy: str


# The first one is for everybody who asks for no language that is here.
LANGUAGES = {
    "en": Texts(
        name="English",
        title="This page is blocked",
        stopped="Access to the page you asked for was stopped.",
        by="Who blocked it",
        operator="Your internet provider",
        authority="Who decides what is listed",
        why="Why",
        reason="The address is on a list of pages that internet providers block.",
        law="Legal basis",
        complaint="If you think this is a mistake",
        help="Where to get help",
        privacy="Nobody records that you saw this notice. It sets no cookies and loads nothing from other sites.",
    ),
    "sv": Texts(
        name="Svenska",
        title="Sidan är blockerad",
        stopped="Åtkomsten till sidan som du försökte öppna har stoppats.",
        by="Vem som har blockerat sidan",
        operator="Din internetleverantör",
        authority="Vem som bestämmer vad som står på listan",
        why="Varför",
        reason="Adressen finns på en lista över sidor som internetleverantörer blockerar.",
        law="Rättslig grund",
        complaint="Om du tror att det har blivit fel",
        help="Här kan du få hjälp",
        privacy="Ingen registrerar att du har sett det här meddelandet. Det använder inga kakor och hämtar ingenting "
        "från andra webbplatser.",
    ),
    "de": Texts(
        name="Deutsch",
        title="Diese Seite ist gesperrt",
        stopped="Der Zugriff auf die aufgerufene Seite wurde gesperrt.",
        by="Wer die Seite gesperrt hat",
        operator="Ihr Internetanbieter",
        authority="Wer über die Liste entscheidet",
        why="Warum",
        reason="Die Adresse steht auf einer Liste von Seiten, die Internetanbieter sperren.",
        law="Rechtsgrundlage",
        complaint="Wenn Sie das für einen Irrtum halten",
        help="Wo Sie Hilfe finden",
        privacy="Niemand erfasst, dass Sie diesen Hinweis gesehen haben. Er setzt keine Cookies und lädt nichts von "
        "anderen Websites.",
    ),
    "fr": Texts(
        name="Français",
        title="Cette page est bloquée",
        stopped="L’accès à la page demandée a été bloqué.",
        by="Qui a bloqué cette page",
        operator="Votre fournisseur d’accès à internet",
        authority="Qui décide du contenu de la liste",
        why="Pourquoi",
        reason="L’adresse figure sur une liste de pages que les fournisseurs d’accès à internet bloquent.",
        law="Fondement juridique",
        complaint="Si vous pensez qu’il s’agit d’une erreur",
        help="Où trouver de l’aide",
        privacy="Personne n’enregistre que vous avez vu cet avis. Il ne dépose aucun cookie et ne charge rien depuis "
        "d’autres sites.",
    ),
    "es": Texts(
        name="Español",
        title="Esta página está bloqueada",
        stopped="Se ha bloqueado el acceso a la página solicitada.",
        by="Quién ha bloqueado la página",
        operator="Su proveedor de internet",
        authority="Quién decide qué figura en la lista",
        why="Por qué",
        reason="La dirección figura en una lista de páginas que los proveedores de internet bloquean.",
        law="Base jurídica",
        complaint="Si cree que se trata de un error",
        help="Dónde encontrar ayuda",
        privacy="Nadie registra que usted ha visto este aviso. No utiliza cookies ni carga nada de otros sitios web.",
    ),
}

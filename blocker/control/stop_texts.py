"""What the stop page says of itself, language by language. Another language is one more entry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Texts:
    """The page's own words in one language.

    Attributes:
        title: Title and first heading.
        stopped: What happened.
        by: Heading: who stopped it.
        why: Heading: why.
        law: Heading: under which law.
        complaint: Heading: how to complain.
        help: Heading: where to get help.
        privacy: What is not recorded.
        reason: Why, where the operator says nothing.
    """

    title: str
    stopped: str
    by: str
    why: str
    law: str
    complaint: str
    help: str
    privacy: str
    reason: str


# The first one is for everybody who asks for no language that is here.
LANGUAGES = {
    "en": Texts(
        title="This page is blocked",
        stopped="Access to the page you asked for was stopped.",
        by="Who stopped it",
        why="Why",
        law="Under which law",
        complaint="If you think this is a mistake",
        help="Where to get help",
        privacy="It is not recorded that you saw this notice. It sets no cookie and loads nothing from elsewhere.",
        reason="The address is on a list of pages that providers stop.",
    ),
    "sv": Texts(
        title="Sidan är blockerad",
        stopped="Åtkomsten till sidan du bad om har stoppats.",
        by="Vem som stoppade den",
        why="Varför",
        law="Med stöd av vilken lag",
        complaint="Om du tror att det är ett misstag",
        help="Här finns hjälp",
        privacy="Ingen registrerar att du har sett det här meddelandet. Det sätter inga kakor och hämtar inget från "
        "andra platser.",
        reason="Adressen finns på en lista över sidor som internetleverantörer stoppar.",
    ),
    "de": Texts(
        title="Diese Seite ist gesperrt",
        stopped="Der Zugriff auf die angeforderte Seite wurde unterbunden.",
        by="Wer sie gesperrt hat",
        why="Warum",
        law="Auf welcher Rechtsgrundlage",
        complaint="Wenn Sie das für einen Irrtum halten",
        help="Wo Sie Hilfe finden",
        privacy="Es wird nicht erfasst, dass Sie diesen Hinweis gesehen haben. Er setzt keine Cookies und lädt nichts "
        "von anderen Servern.",
        reason="Die Adresse steht auf einer Liste von Seiten, die Internetanbieter sperren.",
    ),
    "fr": Texts(
        title="Cette page est bloquée",
        stopped="L’accès à la page demandée a été interrompu.",
        by="Qui l’a bloquée",
        why="Pourquoi",
        law="En vertu de quelle loi",
        complaint="Si vous pensez qu’il s’agit d’une erreur",
        help="Où trouver de l’aide",
        privacy="Le fait que vous ayez vu cet avis n’est pas enregistré. Il ne dépose aucun cookie et ne charge rien "
        "d’ailleurs.",
        reason="L’adresse figure sur une liste de pages que les fournisseurs d’accès bloquent.",
    ),
    "es": Texts(
        title="Esta página está bloqueada",
        stopped="Se ha impedido el acceso a la página solicitada.",
        by="Quién la ha bloqueado",
        why="Por qué",
        law="En virtud de qué ley",
        complaint="Si cree que se trata de un error",
        help="Dónde encontrar ayuda",
        privacy="No se registra que usted haya visto este aviso. No instala cookies ni carga nada de otros sitios.",
        reason="La dirección figura en una lista de páginas que los proveedores bloquean.",
    ),
}
